package dataset

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// Grid is a table as it lies in a file: names of columns, rows of cells in text. CSV, TSV and the like (separator, header and
// scikit-learn's first line of sizes are found out, gzip is unpacked) and Parquet with flat columns.
type Grid struct {
	name    string
	names   []string
	header  bool
	classes []string
	where   string // what an error calls the place of a row: line or row
	rows    func(f func(line int, cells []string) error) error
}

// OpenGrid opens a file. Header is "present", "none", or "" to find out; Parquet has one always.
func OpenGrid(path, header string) (*Grid, error) {
	if strings.EqualFold(filepath.Ext(path), ".parquet") {
		return openParquetGrid(path)
	}
	t, err := openTable(path, header)
	if err != nil {
		return nil, err
	}
	return gridOf(t), nil
}

// ReadGrid reads the text of a table; name is what errors call it.
func ReadGrid(name string, text []byte, header string) (*Grid, error) {
	t, err := newTable(name, text, header)
	if err != nil {
		return nil, err
	}
	return gridOf(t), nil
}

func gridOf(t *table) *Grid {
	return &Grid{name: t.name, names: t.names, header: t.header, classes: t.classes, where: "line", rows: t.rows}
}

// Name is the file.
func (g *Grid) Name() string { return g.name }

// Names are those of the columns: from the header, or "column 1" ….
func (g *Grid) Names() []string { return g.names }

// Header reports whether the names are the file's own.
func (g *Grid) Header() bool { return g.header }

// Classes are the names of classes 0, 1, … of the last column, if the file's first line says them.
func (g *Grid) Classes() []string { return g.classes }

// Rows calls f with every row and its line. The cells are valid until f returns.
func (g *Grid) Rows(f func(line int, cells []string) error) error { return g.rows(f) }

// Column returns the index of the column of a name or number (from 1).
func (g *Grid) Column(name string) (int, error) {
	return (&table{name: g.name, names: g.names}).column(name)
}

// Errorf returns an error that names file, line and column.
func (g *Grid) Errorf(line, column int, format string, args ...any) error {
	return fmt.Errorf("%s: %s %d, column %d (%q): %w", g.name, g.where, line, column+1, g.names[column], fmt.Errorf(format, args...))
}

// CellKind is what a cell holds.
type CellKind int

// The kinds.
const (
	Missing CellKind = missing // nothing, ?, NA, N/A, NaN, null, none
	Number  CellKind = number
	Word    CellKind = word
)

// ReadCell returns the kind of a cell, and its value if it is a number.
func ReadCell(s string) (float64, CellKind) {
	v, kind := cell(s)
	return v, CellKind(kind)
}

// openParquetGrid reads a Parquet file whole. Its cells become text: numbers in full, times in RFC 3339, missing ones empty.
func openParquetGrid(path string) (g *Grid, err error) {
	defer func() { // a damaged file is an error, also where the library panics
		if broken := recover(); broken != nil {
			err = fmt.Errorf("%s: a damaged Parquet file: %v", path, broken)
		}
	}()
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	st, err := r.Stat()
	if err != nil {
		return nil, err
	}
	size := st.Size()
	if err := parquetEnd(r, size); err != nil {
		return nil, fmt.Errorf("%s: not a Parquet file: %w", path, err)
	}
	f, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("%s: not a Parquet file: %w", path, err)
	}
	g = &Grid{name: path, header: true, where: "row"}
	columns := f.Root().Columns()
	if len(columns) == 0 || len(columns) > maxTableColumns {
		return nil, fmt.Errorf("%s: %d columns: 1 to %d are supported", path, len(columns), maxTableColumns)
	}
	for _, c := range columns {
		if !c.Leaf() || c.Repeated() {
			return nil, fmt.Errorf("%s: column %q holds more than one value a row; write it as flat columns", path, c.Name())
		}
		g.names = append(g.names, c.Name())
	}
	var rows [][]string
	var bytes int64
	for _, group := range f.RowGroups() {
		n := group.NumRows()
		if n < 0 || n > size*1024 || int64(len(rows))+n > 1<<31-1 {
			return nil, fmt.Errorf("%s: a row group that claims %d rows", path, n)
		}
		readers := make([]ratingColumn, len(columns))
		for i, c := range columns {
			readers[i] = ratingColumn{pages: group.ColumnChunks()[c.Index()].Pages(), name: c.Name()}
		}
		for i := range int(n) {
			cells := make([]string, len(columns))
			for k := range readers {
				v, err := readers[k].next()
				if err != nil {
					return nil, fmt.Errorf("%s: row %d, column %q: %w", path, len(rows)+i+1, readers[k].name, err)
				}
				cells[k] = parquetCell(v, columns[k].Type())
				bytes += int64(len(cells[k])) + 16
			}
			if bytes > maxTableBytes {
				return nil, fmt.Errorf("%s: row %d: the table has more than %d bytes of cells", path, len(rows)+1, maxTableBytes)
			}
			rows = append(rows, cells)
		}
		for k := range readers {
			err = errors.Join(err, readers[k].pages.Close())
		}
		if err != nil {
			return nil, err
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s: the table has no rows", path)
	}
	g.rows = func(f func(int, []string) error) error {
		for i, cells := range rows {
			if err := f(i+1, cells); err != nil {
				return err
			}
		}
		return nil
	}
	return g, nil
}

// parquetCell writes a value as text.
func parquetCell(v parquet.Value, t parquet.Type) string {
	if v.IsNull() {
		return ""
	}
	if l := t.LogicalType(); l != nil {
		switch l := l.Value.(type) {
		case *format.DateType:
			return time.Unix(int64(v.Int32())*86400, 0).UTC().Format(time.DateOnly)
		case *format.TimestampType:
			if l.Unit.Value != nil && v.Kind() == parquet.Int64 {
				per := int64(time.Second / l.Unit.Value.Duration())
				return time.Unix(v.Int64()/per, v.Int64()%per*int64(l.Unit.Value.Duration())).UTC().Format(time.RFC3339Nano)
			}
		}
	}
	switch v.Kind() {
	case parquet.Float:
		return strconv.FormatFloat(float64(v.Float()), 'g', -1, 32)
	case parquet.Double:
		if math.IsNaN(v.Double()) {
			return ""
		}
		return strconv.FormatFloat(v.Double(), 'g', -1, 64)
	case parquet.Boolean:
		return strconv.FormatBool(v.Boolean())
	}
	return nameOf(v)
}
