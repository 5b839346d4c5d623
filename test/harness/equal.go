package harness

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Rows tells [Equal] which keys are images of which rows, in words of its own and not by keyrow's code.
type Rows struct {
	Pattern string            // of the keys: "user:{id}"
	Table   string            // "users" or "shop.users"
	Fields  map[string]string // column -> its name in the image, where they differ
	Columns []string          // the columns of an image; nil: all that are not generated
	Value   string            // what an image is: "json", which "" stands for, "hash" or "string"
	Column  string            // the one column of a string
}

// Equal holds every image in Redis against its row, column by column, and fails the test for each that differs or
// has no row. Both sides must have come to rest: see [Settled]. It returns how many images there were.
func Equal(t testing.TB, r *redis.Client, db *sql.DB, rows ...Rows) int {
	t.Helper()
	ctx := context.Background()
	images := 0
	for _, rs := range rows {
		table, err := describe(ctx, db, rs)
		if err != nil {
			t.Fatalf("describe %s: %v", rs.Table, err)
		}
		keys, err := scan(ctx, r, table.glob)
		if err != nil {
			t.Fatalf("list the images of %s: %v", rs.Table, err)
		}
		for _, key := range keys {
			values := table.shape.FindStringSubmatch(key)
			if values == nil {
				continue
			}
			var image []byte
			var fields map[string]string
			if rs.Value == "hash" {
				fields, err = r.HGetAll(ctx, key).Result()
			} else {
				image, err = r.Get(ctx, key).Bytes()
			}
			if errors.Is(err, redis.Nil) || rs.Value == "hash" && err == nil && len(fields) == 0 { // expired since
				continue
			}
			if rs.Value == "string" {
				fields = map[string]string{rs.Column: string(image)}
			}
			if err == nil {
				err = table.compare(ctx, db, values[1:], image, fields, rs)
			}
			if err != nil {
				t.Errorf("image and row differ: %s: %v\nimage: %s%q", key, err, image, fields)
			}
			images++
		}
	}
	return images
}

// rowTable is what Equal has to know of a table.
type rowTable struct {
	shape   *regexp.Regexp // of the keys, one group for each variable
	glob    string         // the same for SCAN, wider
	key     []int          // index in columns of each variable
	query   string         // selects columns by the variables
	columns []rowColumn
}

type rowColumn struct {
	name, field string
	kind        string // DATA_TYPE, and "json" for what MariaDB calls longtext with a check of json_valid
}

var variable = regexp.MustCompile(`\{(\w+)\}`)

func describe(ctx context.Context, db *sql.DB, rs Rows) (*rowTable, error) {
	schema, name, ok := strings.Cut(rs.Table, ".")
	if !ok {
		name = rs.Table
		if err := db.QueryRowContext(ctx, "SELECT DATABASE()").Scan(&schema); err != nil {
			return nil, err
		}
	}
	found, err := db.QueryContext(ctx, `SELECT column_name, data_type, extra, EXISTS (SELECT 1
			FROM information_schema.check_constraints k WHERE k.constraint_schema = c.table_schema
			AND k.table_name = c.table_name AND LOCATE(CONCAT('json_valid(', CHAR(96), c.column_name, CHAR(96), ')'), k.check_clause))
		FROM information_schema.columns c WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position`,
		schema, name)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	table := &rowTable{}
	for found.Next() {
		var c rowColumn
		var extra string
		var isJSON bool
		if err := found.Scan(&c.name, &c.kind, &extra, &isJSON); err != nil {
			return nil, err
		}
		c.field = c.name
		if f := rs.Fields[c.name]; f != "" {
			c.field = f
		}
		if isJSON {
			c.kind = "json"
		}
		if rs.Columns == nil && !strings.Contains(extra, "GENERATED") || slices.Contains(rs.Columns, c.name) {
			table.columns = append(table.columns, c)
		}
	}
	if err := found.Err(); err != nil {
		return nil, err
	}
	return table, table.prepare(schema, name, rs.Pattern)
}

// prepare makes the query and the shape of the keys.
func (table *rowTable) prepare(schema, name, pattern string) error {
	var list, where []string
	for _, c := range table.columns {
		expr := quote(c.name)
		switch c.kind {
		case "float": // its text has six digits only
			expr += "+0e0"
		case "bit":
			expr += "+0"
		}
		list = append(list, expr)
	}
	shape, wide, end := "^", "", 0
	for _, at := range variable.FindAllStringSubmatchIndex(pattern, -1) {
		v := pattern[at[2]:at[3]]
		i := slices.IndexFunc(table.columns, func(c rowColumn) bool { return c.name == v })
		if i < 0 {
			return fmt.Errorf("the pattern's variable %s is not a column of an image", v)
		}
		table.key = append(table.key, i)
		where = append(where, quote(v)+" = ?")
		shape += regexp.QuoteMeta(pattern[end:at[0]]) + "(.+)"
		wide += glob(pattern[end:at[0]]) + "*"
		end = at[1]
	}
	if len(where) == 0 {
		return fmt.Errorf("no {column} in the pattern %q", pattern)
	}
	var err error
	table.shape, err = regexp.Compile("(?s)" + shape + regexp.QuoteMeta(pattern[end:]) + "$")
	table.glob = wide + glob(pattern[end:])
	table.query = "SELECT " + strings.Join(list, ", ") + " FROM " + quote(schema) + "." + quote(name) +
		" WHERE " + strings.Join(where, " AND ")
	return err
}

// compare holds the image of the key with these values against its row: a JSON image, or the fields of another.
func (table *rowTable) compare(ctx context.Context, db *sql.DB, values []string, image []byte, plain map[string]string, rs Rows) error {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	found, err := db.QueryContext(ctx, table.query, args...)
	if err != nil {
		return err
	}
	defer found.Close()
	rows, err := readText(found)
	if err != nil {
		return err
	}
	// Several rows answer to one spelling where a collation has aliases; the image belongs to the exact one.
	rows = slices.DeleteFunc(rows, func(row [][]byte) bool {
		for i, at := range table.key {
			if table.columns[at].text(row[at]) != values[i] {
				return true
			}
		}
		return false
	})
	if len(rows) != 1 {
		return fmt.Errorf("%d rows have this very key", len(rows))
	}
	if plain != nil {
		return table.comparePlain(rows[0], plain, rs)
	}
	fields, err := readObject(image)
	if err != nil {
		return err
	}
	for i, c := range table.columns {
		got, ok := fields[c.field]
		if !ok {
			return fmt.Errorf("the image has no field %q", c.field)
		}
		delete(fields, c.field)
		if err := c.same(got, rows[0][i]); err != nil {
			return fmt.Errorf("column %q (%s): %w", c.name, c.kind, err)
		}
	}
	for f := range fields {
		return fmt.Errorf("the image has a field %q that is no column of it", f)
	}
	return nil
}

// comparePlain holds the fields of a hash, or the one of a string, against a row.
func (table *rowTable) comparePlain(row [][]byte, plain map[string]string, rs Rows) error {
	for i, c := range table.columns {
		field := c.field
		if rs.Value == "string" {
			if field = c.name; field != rs.Column {
				continue
			}
		}
		got, ok := plain[field]
		delete(plain, field)
		want := c.text(row[i])
		switch {
		case ok != (row[i] != nil):
			return fmt.Errorf("column %q (%s): in the image: %v, NULL in the row: %v", c.name, c.kind, ok, row[i] == nil)
		case got == want || c.kind == "json" && got == strings.TrimSpace(want):
		case c.kind == "float" || c.kind == "double":
			if err := c.same(json.RawMessage(got), row[i]); err != nil {
				return fmt.Errorf("column %q: %w", c.name, err)
			}
		default:
			return fmt.Errorf("column %q (%s): %q in the image, %q in the row", c.name, c.kind, got, want)
		}
	}
	for f := range plain {
		return fmt.Errorf("the image has a field %q that is no column of it", f)
	}
	return nil
}

// same holds one value of an image against MySQL's text of the column, nil for NULL.
func (c rowColumn) same(image json.RawMessage, row []byte) error {
	differ := func(wanted string) error {
		return fmt.Errorf("%s in the image, %s in the row", image, wanted)
	}
	if row == nil {
		if string(image) != "null" {
			return differ("NULL")
		}
		return nil
	}
	text := string(row)
	switch c.kind {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "year", "bit", "decimal":
		if string(image) != c.text(row) {
			return differ(text)
		}
	case "float", "double":
		a, err1 := strconv.ParseFloat(string(image), 64)
		b, err2 := strconv.ParseFloat(text, 64)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if c.kind == "float" {
			a, b = float64(float32(a)), float64(float32(b))
		}
		if a != b {
			return differ(text)
		}
	case "json":
		if string(image) != strings.TrimSpace(text) {
			return differ(text)
		}
	default:
		var s string
		if err := json.Unmarshal(image, &s); err != nil {
			return differ(strconv.Quote(text))
		}
		if strings.HasSuffix(c.kind, "blob") || strings.HasSuffix(c.kind, "binary") {
			raw, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return err
			}
			s = string(raw)
		}
		if s != text {
			return differ(strconv.Quote(text))
		}
	}
	return nil
}

// text is MySQL's text of a value without the zeros that ZEROFILL puts before a number.
func (c rowColumn) text(row []byte) string {
	switch c.kind {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "decimal":
		for len(row) > 1 && row[0] == '0' && row[1] >= '0' && row[1] <= '9' {
			row = row[1:]
		}
	}
	return string(row)
}

// readObject reads a JSON object, and refuses what a map would hide: a field given twice, anything after the object.
func readObject(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, errors.New("the image is not a JSON object")
	}
	fields := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		field := name.(string) // the decoder lets nothing else through here
		if _, ok := fields[field]; ok {
			return nil, fmt.Errorf("the image has the field %q twice", field)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		fields[field] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the image goes on after its object")
	}
	return fields, nil
}
