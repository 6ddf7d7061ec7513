package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/csv"
	"fmt"
	"html/template"
	"io"
	"path/filepath"
	"strconv"

	"github.com/cohort-learning/cohort/journal"
)

// A Report is what stands on the page, from top to bottom. Empty parts are
// left out.
type Report struct {
	Title      string
	Subtitle   string
	Highlights []Fact // the few numbers that matter most
	Settings   []Fact
	Sections   []Section
	Provenance []Fact // command, seed, engine, version, digest: how to get it again
}

// A Fact is a label and what it says.
type Fact struct {
	Label string
	Value string
	Note  string // small print beside the value; may be empty
}

// A Section is a headline and what stands below it.
type Section struct {
	Title  string
	Text   string
	Charts []Chart
	Tables []Table
	Images []Image
}

// A Table is a table of text. It is written to NAME.csv as it stands.
type Table struct {
	Name    string // file name without extension, unique in the report
	Title   string
	Columns []Column
	Rows    [][]string
}

// A Column is the head of a column.
type Column struct {
	Title  string
	Number bool // written to the right
}

// An Image is a picture made elsewhere. It is also written to NAME.png.
type Image struct {
	Name    string
	Title   string
	Caption string
	PNG     []byte
}

//go:embed report.html.tmpl
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"base64": func(b []byte) template.URL {
		return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b))
	},
	"chart": func(v view, c Chart) template.HTML { return template.HTML(c.svg(v.colours)) },
	"drawn": func(c Chart) bool { return !c.empty() },
	"figures": func(s Section) bool {
		return len(s.Charts)+len(s.Images) > 0
	},
}).Parse(pageText))

// A view is what the template sees.
type view struct {
	Report
	colours colours
}

func (r Report) view() view {
	v := view{r, make(colours)}
	for _, s := range r.Sections {
		for _, c := range s.Charts {
			c.check()
			for _, line := range c.Series {
				v.colours.of(line.Name)
			}
		}
	}
	return v
}

// HTML writes the page. It needs no other file and no network.
func (r Report) HTML(w io.Writer) error {
	if err := page.Execute(w, r.view()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// Write writes report.html into dir, and into its subfolder report a PNG and a
// CSV of each chart, a CSV of each table and a PNG of each image. It returns
// the paths, report.html first.
func (r Report) Write(fsys journal.FS, dir string) ([]string, error) {
	parts := filepath.Join(dir, "report")
	if err := fsys.MkdirAll(parts, 0o755); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	var files []string
	var err error
	add := func(path string, write func(io.Writer) error) {
		if err == nil {
			err = journal.WriteFile(fsys, path, write)
			files = append(files, path)
		}
	}
	add(filepath.Join(dir, "report.html"), r.HTML)
	v := r.view()
	for _, s := range r.Sections {
		for _, c := range s.Charts {
			if c.empty() {
				continue
			}
			add(filepath.Join(parts, c.Name+".png"), func(w io.Writer) error { return c.png(w, v.colours) })
			add(filepath.Join(parts, c.Name+".csv"), c.CSV)
		}
		for _, t := range s.Tables {
			add(filepath.Join(parts, t.Name+".csv"), t.CSV)
		}
		for _, i := range s.Images {
			add(filepath.Join(parts, i.Name+".png"), func(w io.Writer) error { _, err := w.Write(i.PNG); return err })
		}
	}
	if err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return files, nil
}

// PNG returns the chart as a picture, with its title.
func (c Chart) PNG() ([]byte, error) {
	c.check()
	var buf bytes.Buffer
	err := c.png(&buf, make(colours))
	return buf.Bytes(), err
}

// CSV writes the chart's numbers, one line a point: series, x, y and, if any
// series has a band, lo and hi. For [Steps] x is the lower edge of the bin and
// x_end its upper edge.
func (c Chart) CSV(w io.Writer) error {
	c.check()
	banded := false
	for _, s := range c.Series {
		banded = banded || s.Lo != nil
	}
	out := csv.NewWriter(w)
	head := []string{"series", "x", "y"}
	if c.Kind == Steps {
		head = append(head, "x_end")
	}
	if banded {
		head = append(head, "lo", "hi")
	}
	if err := out.Write(head); err != nil {
		return err
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	for _, s := range c.Series {
		for i, y := range s.Y {
			line := []string{seriesName(s.Name), number(s.X[i]), number(y)}
			if c.Kind == Steps {
				line = append(line, number(s.X[i+1]))
			}
			switch {
			case s.Lo != nil:
				line = append(line, number(s.Lo[i]), number(s.Hi[i]))
			case banded:
				line = append(line, "", "")
			}
			if err := out.Write(line); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// CSV writes the table as it stands.
func (t Table) CSV(w io.Writer) error {
	out := csv.NewWriter(w)
	head := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		head[i] = c.Title
	}
	if err := out.Write(head); err != nil {
		return err
	}
	for _, row := range t.Rows {
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
