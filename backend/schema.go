package backend

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"keyrow/mapping"
)

// ReadSchema reads what information_schema says of tables, each spelled "users", of the database the DSN names, or
// "shop.users". A table that does not exist, or that the user of the DSN may not see, is not in the result.
//
// It takes one query for the tables, one each for their columns, indexes and triggers, and with MariaDB one for each
// table with long text. Triggers show only to users with the TRIGGER privilege.
func ReadSchema(ctx context.Context, db *sql.DB, tables []string) (mapping.Schema, error) {
	if len(tables) == 0 {
		return mapping.Schema{}, nil
	}
	s := schemaReader{ctx: ctx, db: db, tables: make(map[tableName]*mapping.Table)}
	for _, stage := range []struct {
		what string
		read func() error
	}{
		{"server", s.readServer},
		{"tables", func() error { return s.readTables(tables) }},
		{"columns", s.readColumns},
		{"indexes", s.readIndexes},
		{"triggers", s.readTriggers},
		{"check constraints", s.readChecks},
	} {
		if err := stage.read(); err != nil {
			return nil, fmt.Errorf("read the schema of mysql: %s: %w", stage.what, err)
		}
	}

	schema := make(mapping.Schema)
	for _, spelled := range tables {
		if t := s.find(spelled); t != nil {
			schema[spelled] = t
		}
	}
	return schema, nil
}

// Tables lists the tables and views of the database the DSN names, as far as its user may see them, by name.
func Tables(ctx context.Context, db *sql.DB) (database string, tables []string, err error) {
	s := schemaReader{ctx: ctx, db: db}
	if err = s.readServer(); err == nil {
		// Not the sequences of MariaDB, which have one row and count.
		err = s.each("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN "+
			"('BASE TABLE', 'SYSTEM VERSIONED', 'VIEW') ORDER BY TABLE_NAME", func(scan func(...any) error) error {
			var name string
			err := scan(&name)
			tables = append(tables, name)
			return err
		})
	}
	if err != nil {
		return "", nil, fmt.Errorf("read the tables of mysql: %w", err)
	}
	return s.database, tables, nil
}

type tableName struct{ schema, table string }

type schemaReader struct {
	ctx context.Context
	db  *sql.DB

	database string // of the DSN
	maria    bool   // MariaDB writes defaults as expressions
	folded   bool   // names of tables are compared without regard to case

	where  string // picks the tables, by the columns %s (schema) and %s (table)
	args   []any
	tables map[tableName]*mapping.Table
}

func (s *schemaReader) readServer() error {
	var database sql.NullString
	var version string
	var lower int
	err := s.db.QueryRowContext(s.ctx, "SELECT DATABASE(), VERSION(), @@lower_case_table_names").
		Scan(&database, &version, &lower)
	s.database = database.String
	s.maria = strings.Contains(version, "MariaDB")
	s.folded = lower != 0
	return err
}

// name is the schema and table that a config spells "users" or "shop.users".
func (s *schemaReader) name(spelled string) tableName {
	if schema, table, ok := strings.Cut(spelled, "."); ok {
		return tableName{schema, table}
	}
	return tableName{s.database, spelled}
}

// find returns the table of a spelling. information_schema compares without regard to case, so it may have returned
// tables of which only the case differs.
func (s *schemaReader) find(spelled string) *mapping.Table {
	want := s.name(spelled)
	if t := s.tables[want]; t != nil || !s.folded {
		return t
	}
	for name, t := range s.tables {
		if strings.EqualFold(name.schema, want.schema) && strings.EqualFold(name.table, want.table) {
			return t
		}
	}
	return nil
}

func (s *schemaReader) readTables(spelled []string) error {
	var schemas, tables []any
	for _, text := range spelled {
		name := s.name(text)
		schemas = append(schemas, name.schema)
		tables = append(tables, name.table)
	}
	// More tables than asked for may match, the right name in another of the schemas; nobody asks for them.
	s.where = "%s IN (" + placeholders(len(schemas)) + ") AND %s IN (" + placeholders(len(tables)) + ")"
	s.args = slices.Concat(schemas, tables)
	return s.each("SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE "+
		fmt.Sprintf(s.where, "TABLE_SCHEMA", "TABLE_NAME"),
		func(scan func(...any) error) error {
			var name tableName
			var engine sql.NullString
			if err := scan(&name.schema, &name.table, &engine); err != nil {
				return err
			}
			s.tables[name] = &mapping.Table{Schema: name.schema, Name: name.table, Engine: engine.String}
			return nil
		})
}

func (s *schemaReader) readColumns() error {
	return s.each("SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_DEFAULT, IS_NULLABLE, DATA_TYPE, COLUMN_TYPE, "+
		"CHARACTER_MAXIMUM_LENGTH, CHARACTER_OCTET_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, "+
		"CHARACTER_SET_NAME, COLLATION_NAME, EXTRA, GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE "+
		fmt.Sprintf(s.where, "TABLE_SCHEMA", "TABLE_NAME")+" ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION",
		func(scan func(...any) error) error {
			var name tableName
			var c mapping.Column
			var nullable string
			var def, charset, collation, extra, generation sql.NullString
			var length, octets, precision, scale, fsp sql.NullInt64
			if err := scan(&name.schema, &name.table, &c.Name, &def, &nullable, &c.Type, &c.ColumnType,
				&length, &octets, &precision, &scale, &fsp, &charset, &collation, &extra, &generation); err != nil {
				return err
			}
			t := s.tables[name]
			if t == nil {
				return nil
			}
			c.Type = strings.ToLower(c.Type)
			c.Nullable = strings.EqualFold(nullable, "YES")
			c.Length, c.Octets = length.Int64, octets.Int64
			c.Precision, c.Scale, c.Fsp = int(precision.Int64), int(scale.Int64), int(fsp.Int64)
			c.Charset, c.Collation = charset.String, collation.String
			c.Unsigned = strings.Contains(strings.ToLower(c.ColumnType), "unsigned")

			more := strings.ToLower(extra.String)
			c.AutoIncrement = strings.Contains(more, "auto_increment")
			c.OnUpdate = strings.Contains(more, "on update")
			// "DEFAULT_GENERATED" is no generated column, but a default that is an expression.
			c.Generated = generation.String != "" || strings.Contains(more, "virtual generated") ||
				strings.Contains(more, "stored generated") || strings.Contains(more, "persistent")
			if !c.Generated && def.Valid {
				if s.maria {
					c.Default, c.DefaultExpr = mariaDefault(c.Type, def.String)
				} else {
					c.Default, c.DefaultExpr = mysqlDefault(c.Type, def.String, strings.Contains(more, "default_generated"))
				}
				if c.Default != nil && !wholly(c.Type, *c.Default) {
					c.Default, c.DefaultExpr = nil, true
				}
			}
			t.Columns = append(t.Columns, c)
			return nil
		})
}

// readIndexes reads the indexes: the primary key first, then by name.
func (s *schemaReader) readIndexes() error {
	err := s.each("SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART "+
		"FROM information_schema.STATISTICS WHERE "+
		fmt.Sprintf(s.where, "TABLE_SCHEMA", "TABLE_NAME")+
		" ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
		func(scan func(...any) error) error {
			var name tableName
			var index string
			var nonUnique int
			var column sql.NullString // NULL: an expression
			var prefix sql.NullInt64
			if err := scan(&name.schema, &name.table, &index, &nonUnique, &column, &prefix); err != nil {
				return err
			}
			t := s.tables[name]
			if t == nil {
				return nil
			}
			if n := len(t.Indexes); n == 0 || t.Indexes[n-1].Name != index {
				t.Indexes = append(t.Indexes, mapping.Index{Name: index, Unique: nonUnique == 0})
			}
			i := &t.Indexes[len(t.Indexes)-1]
			i.Columns = append(i.Columns, column.String)
			i.Prefix = i.Prefix || prefix.Valid
			return nil
		})
	for _, t := range s.tables {
		slices.SortFunc(t.Indexes, func(a, b mapping.Index) int {
			return cmp.Or(cmp.Compare(notPrimary(a), notPrimary(b)), strings.Compare(a.Name, b.Name))
		})
	}
	return err
}

func notPrimary(i mapping.Index) int {
	if i.Name == "PRIMARY" {
		return 0
	}
	return 1
}

func (s *schemaReader) readTriggers() error {
	return s.each("SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE "+
		fmt.Sprintf(s.where, "EVENT_OBJECT_SCHEMA", "EVENT_OBJECT_TABLE")+" ORDER BY TRIGGER_NAME",
		func(scan func(...any) error) error {
			var name tableName
			var trigger string
			if err := scan(&name.schema, &name.table, &trigger); err != nil {
				return err
			}
			if t := s.tables[name]; t != nil {
				t.Triggers = append(t.Triggers, trigger)
			}
			return nil
		})
}

// readChecks finds the columns that MariaDB made of the type JSON: long text with a check of its own. The check stands
// in information_schema too, but shows there only to users with a grant on the whole database.
func (s *schemaReader) readChecks() error {
	if !s.maria {
		return nil
	}
	for _, t := range s.tables {
		if !slices.ContainsFunc(t.Columns, func(c mapping.Column) bool { return c.Type == "longtext" }) {
			continue
		}
		var name, create string
		query := "SHOW CREATE TABLE " + quoteName(t.Schema) + "." + quoteName(t.Name)
		switch rows, err := s.db.QueryContext(s.ctx, query); {
		case err != nil:
			return err
		case !rows.Next():
			return errors.Join(rows.Err(), rows.Close())
		default:
			// A view has more columns, and no checks.
			columns, err := rows.Columns()
			if err == nil && len(columns) == 2 {
				err = rows.Scan(&name, &create)
			}
			if err := errors.Join(err, rows.Close()); err != nil {
				return err
			}
		}
		for i := range t.Columns {
			c := &t.Columns[i]
			c.JSON = c.Type == "longtext" && strings.Contains(create, "CHECK (json_valid("+quoteName(c.Name)+"))")
		}
	}
	return nil
}

// each runs a query and row for every row of it.
func (s *schemaReader) each(query string, row func(scan func(...any) error) error) error {
	rows, err := s.db.QueryContext(s.ctx, query, s.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func placeholders(n int) string { return "?" + strings.Repeat(",?", n-1) }

// mysqlDefault reads a COLUMN_DEFAULT of MySQL: the plain value, or an expression if EXTRA says so.
func mysqlDefault(columnType, text string, generated bool) (*string, bool) {
	if generated || isTime(columnType) && strings.HasPrefix(strings.ToLower(text), "current_timestamp") {
		return nil, true
	}
	if v, ok := literalBytes(text); ok && (columnType == "bit" || isBinary(columnType)) {
		text = literalText(columnType, v)
	}
	return &text, false
}

// wholly reports whether the text of a default is known to be all of it. information_schema is in utf8mb3, so that
// other characters, and bytes that are no characters, are a ? in it, and of a FLOAT it has six digits. What is not shown
// is as good as an expression: only MySQL knows the value.
func wholly(columnType, text string) bool {
	if columnType == "float" {
		f, err := strconv.ParseFloat(text, 32)
		return err == nil && f == 0
	}
	return !strings.Contains(text, "?")
}

var number = regexp.MustCompile(`^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$`)

// mariaDefault reads a COLUMN_DEFAULT of MariaDB, which is an expression: NULL, a number, 'text', b'101', x'6162', or
// anything else.
func mariaDefault(columnType, text string) (*string, bool) {
	if strings.EqualFold(text, "NULL") {
		return nil, false
	}
	if number.MatchString(text) {
		return &text, false
	}
	if v, ok := unquote(text); ok {
		return &v, false
	}
	if v, ok := literalBytes(text); ok {
		v := literalText(columnType, v)
		return &v, false
	}
	return nil, true
}

// unquote reads a string literal of SQL as MariaDB writes it.
func unquote(text string) (string, bool) {
	if len(text) < 2 || text[0] != '\'' || text[len(text)-1] != '\'' {
		return "", false
	}
	text = text[1 : len(text)-1]
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\'':
			if i++; i == len(text) || text[i] != '\'' {
				return "", false // 'a' || 'b'
			}
			b.WriteByte('\'')
		case c == '\\' && i+1 < len(text):
			i++
			switch text[i] {
			case '0':
				b.WriteByte(0)
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case 'b':
				b.WriteByte('\b')
			case 'Z':
				b.WriteByte(26)
			default:
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

// literalBytes reads b'101', x'6162' and 0x6162.
func literalBytes(text string) ([]byte, bool) {
	lower := strings.ToLower(text)
	digits, base := "", 16
	switch {
	case lower == "b'" || lower == "x'":
		return nil, false
	case strings.HasPrefix(lower, "b'") && strings.HasSuffix(lower, "'"):
		digits, base = lower[2:len(lower)-1], 2
	case strings.HasPrefix(lower, "x'") && strings.HasSuffix(lower, "'"):
		digits = lower[2 : len(lower)-1]
	case strings.HasPrefix(lower, "0x"):
		digits = lower[2:]
	default:
		return nil, false
	}
	each := 2 // digits of a byte
	if base == 2 {
		each = 8
	}
	digits = strings.Repeat("0", (each-len(digits)%each)%each) + digits
	var b []byte
	for ; digits != ""; digits = digits[each:] {
		v, err := strconv.ParseUint(digits[:each], base, 8)
		if err != nil {
			return nil, false
		}
		b = append(b, byte(v))
	}
	return b, true
}

// literalText is a literal of bytes as the text of a column: the number for BIT and the number types.
func literalText(columnType string, b []byte) string {
	if isBinary(columnType) || isText(columnType) || len(b) > 8 {
		return string(b)
	}
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return strconv.FormatUint(n, 10)
}

func isTime(columnType string) bool {
	return columnType == "timestamp" || columnType == "datetime"
}

func isBinary(columnType string) bool {
	return strings.HasSuffix(columnType, "binary") || strings.HasSuffix(columnType, "blob")
}

func isText(columnType string) bool {
	return strings.HasSuffix(columnType, "char") || strings.HasSuffix(columnType, "text")
}
