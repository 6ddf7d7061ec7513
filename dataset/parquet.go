package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/parquet-go/parquet-go"
)

// readParquet adds the ratings of a Parquet file: three flat columns, found by name, of whatever types hold names and numbers.
func (t *ratingTable) readParquet(p *ratingPart, s Spec, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return t.readRowGroups(p, s, path, f, st.Size())
}

// readRowGroups reads what a file holds. A damaged file is an error, also where the library panics.
func (t *ratingTable) readRowGroups(p *ratingPart, s Spec, path string, r io.ReaderAt, size int64) (err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("%s: a damaged Parquet file: %v", path, broken)
		}
	}()
	if err := parquetEnd(r, size); err != nil {
		return fmt.Errorf("%s: not a Parquet file: %w", path, err)
	}
	f, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return fmt.Errorf("%s: not a Parquet file: %w", path, err)
	}
	var names []string
	for _, c := range f.Root().Columns() {
		names = append(names, c.Name())
	}
	at, err := s.roleColumns(path, names, true)
	if err != nil {
		return err
	}
	var leaf [3]int
	for role, k := range at {
		c := f.Root().Columns()[k]
		if !c.Leaf() || c.Repeated() {
			return fmt.Errorf("%s: column %q holds more than one value a row; a rating is one user, one item, one number", path, c.Name())
		}
		leaf[role] = int(c.Index())
	}
	p.begin(path, "row")
	row := 0
	for _, g := range f.RowGroups() {
		n := g.NumRows()
		if n < 0 || n > size*1024 || int64(row)+n > 1<<31-1 { // no encoding packs rows of three columns tighter
			return fmt.Errorf("%s: a row group that claims %d rows", path, n)
		}
		var columns [3]ratingColumn
		for role := range columns {
			columns[role] = ratingColumn{pages: g.ColumnChunks()[leaf[role]].Pages(), name: names[at[role]]}
		}
		err := t.readRows(p, path, row, int(n), &columns)
		for role := range columns {
			err = errors.Join(err, columns[role].pages.Close())
		}
		if err != nil {
			return err
		}
		row += int(n)
	}
	return nil
}

// parquetEnd checks the last eight bytes, which say how long the description before them is, before memory is taken for it.
func parquetEnd(r io.ReaderAt, size int64) error {
	var end [8]byte
	if size < 12 {
		return fmt.Errorf("it has %d bytes", size)
	}
	if _, err := r.ReadAt(end[:], size-8); err != nil {
		return err
	}
	if n := binary.LittleEndian.Uint32(end[:4]); string(end[4:]) != "PAR1" || int64(n) > size-12 {
		return fmt.Errorf("its %d bytes end in %q after a description of %d bytes; it may be incomplete", size, end[4:], n)
	}
	return nil
}

func (t *ratingTable) readRows(p *ratingPart, path string, before, n int, columns *[3]ratingColumn) error {
	for i := range n {
		var v [3]parquet.Value
		for role := range v {
			var err error
			if v[role], err = columns[role].next(); err != nil {
				return fmt.Errorf("%s: row %d, column %q: %w", path, before+i+1, columns[role].name, err)
			}
		}
		column := 2
		x, err := ratingOf(v[2])
		if err == nil {
			err = t.add(p, before+i+1, nameOf(v[0]), nameOf(v[1]), x)
		}
		if errors.Is(err, errUnknownItem) {
			column = 1
		}
		if err != nil {
			return fmt.Errorf("%s: row %d, column %q: %w", path, before+i+1, columns[column].name, err)
		}
	}
	return nil
}

// ratingColumn reads one column of a row group, value by value.
type ratingColumn struct {
	name   string
	pages  parquet.Pages
	page   parquet.Page
	values parquet.ValueReader
	buf    [256]parquet.Value
	have   []parquet.Value
}

func (c *ratingColumn) next() (parquet.Value, error) {
	for len(c.have) == 0 {
		if c.values == nil {
			page, err := c.pages.ReadPage()
			if err == io.EOF {
				return parquet.Value{}, errors.New("the column ends before the others")
			}
			if err != nil {
				return parquet.Value{}, err
			}
			c.page, c.values = page, page.Values()
		}
		n, err := c.values.ReadValues(c.buf[:])
		for i := range n { // values may point into the page
			c.buf[i] = c.buf[i].Clone()
		}
		c.have = c.buf[:n]
		switch {
		case err == io.EOF || n == 0:
			parquet.Release(c.page)
			c.values = nil
		case err != nil:
			return parquet.Value{}, err
		}
	}
	v := c.have[0]
	c.have = c.have[1:]
	return v, nil
}

// nameOf returns what a user or an item is called; "" if it is missing.
func nameOf(v parquet.Value) string {
	switch v.Kind() {
	case parquet.Int32:
		return strconv.FormatInt(int64(v.Int32()), 10)
	case parquet.Int64:
		return strconv.FormatInt(v.Int64(), 10)
	case parquet.ByteArray, parquet.FixedLenByteArray:
		return string(v.ByteArray())
	}
	if v.IsNull() {
		return ""
	}
	return v.String()
}

func ratingOf(v parquet.Value) (float64, error) {
	switch v.Kind() {
	case parquet.Int32:
		return float64(v.Int32()), nil
	case parquet.Int64:
		return float64(v.Int64()), nil
	case parquet.Float:
		return float64(v.Float()), nil
	case parquet.Double:
		return v.Double(), nil
	}
	if v.IsNull() {
		return 0, errors.New("the rating is missing")
	}
	x, err := strconv.ParseFloat(v.String(), 64)
	if err != nil {
		return 0, fmt.Errorf("the rating is %.40q, not a number", v.String())
	}
	return x, nil
}
