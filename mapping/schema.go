package mapping

// Schema is what the live database says of the tables that mappings and queries name. The key is the table as the config
// spells it, "users" or "shop.users"; a table that does not exist has no entry. The SELECT of a query is such a table
// too: what it is called by is its text.
type Schema map[string]*Table

// Table is one table of a [Schema], from information_schema.
type Table struct {
	Schema, Name string
	Columns      []Column // in ordinal order
	Indexes      []Index
	Triggers     []string // the names of its triggers, of any kind
	Engine       string   // empty for a view
	Problem      string   // of a SELECT: why the database does not run it; the rest is empty then
	Doubt        string   // of a SELECT: why its columns are not known, although the database knows it
}

// Column is one column of a [Table]. What a type has no use for is zero.
type Column struct {
	Name          string
	Type          string // DATA_TYPE in lower case: "varchar"; "json" only where it is a type of its own (MySQL)
	ColumnType    string // COLUMN_TYPE: "enum('a','b')", "int(10) unsigned zerofill"
	Unsigned      bool
	Nullable      bool
	AutoIncrement bool
	Generated     bool // virtual or stored: nobody may write it
	JSON          bool // a text column with CHECK (json_valid(column)), which is what MariaDB makes of JSON

	Length    int64 // CHARACTER_MAXIMUM_LENGTH: characters, or bytes for binary types
	Octets    int64 // CHARACTER_OCTET_LENGTH: bytes
	Precision int   // NUMERIC_PRECISION: digits, or bits for BIT
	Scale     int   // NUMERIC_SCALE: fraction digits
	Fsp       int   // DATETIME_PRECISION: digits of the second's fraction, 0 to 6
	Charset   string
	Collation string

	Default     *string // the default as plain text, without quotes, BIT as a number; nil: none, NULL if Nullable
	DefaultExpr bool    // the default is an expression, as CURRENT_TIMESTAMP; Default is not looked at then
	OnUpdate    bool    // ON UPDATE CURRENT_TIMESTAMP
}

// Index is one index of a [Table].
type Index struct {
	Name    string // "PRIMARY" for the primary key
	Unique  bool
	Columns []string
	Prefix  bool // at least one column is indexed by its first bytes only
}

// column returns the column of that exact name, or nil.
func (t *Table) column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}
