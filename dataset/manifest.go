package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Manifest describes a dealt data set: what was asked for, what every member got, and a digest by which two sides can
// tell whether they hold the same lists.
type Manifest struct {
	Schema  int      `json:"schema"` // 1
	Data    string   `json:"data"`
	Scheme  Scheme   `json:"scheme"`
	Seed    uint64   `json:"seed"`
	Classes []string `json:"classes,omitempty"`
	Train   Part     `json:"train"`
	Test    *Part    `json:"test,omitempty"`
	Server  int      `json:"server,omitempty"` // training samples that are the server's
	Members []Member `json:"members"`
}

// Part sums up the training or the test lists of all members.
type Part struct {
	Samples  int     `json:"samples"`  // in the data set
	Dropped  int     `json:"dropped"`  // held by nobody
	Smallest int     `json:"smallest"` // sizes of the members' lists
	Median   int     `json:"median"`
	Largest  int     `json:"largest"`
	EMD      float64 `json:"emd"`    // mean label skew, see [EMD], weighted by size
	Digest   string  `json:"digest"` // SHA-256 of the lists
}

// Member is what one client holds.
type Member struct {
	Name      string  `json:"name"`
	Folder    string  `json:"folder,omitempty"` // of an export
	Train     int     `json:"train"`
	Test      int     `json:"test"`
	Histogram []int   `json:"histogram,omitempty"` // training samples of each class
	EMD       float64 `json:"emd"`
	Noise     float64 `json:"noise,omitempty"` // variance of the feature skew
	Turned    int     `json:"turned,omitempty"`
}

// Manifest describes the lists dealt from train and test (nil if there was none).
func (d *Dealt) Manifest(train, test *Examples) *Manifest {
	p := d.Train
	m := &Manifest{Schema: 1, Data: train.Name, Scheme: p.Scheme, Seed: p.Seed, Train: p.part(train), Server: len(d.Server)}
	if train.Labels != nil {
		m.Classes = train.Classes
	}
	if d.Test != nil && test != nil {
		part := d.Test.part(test)
		m.Test = &part
	}
	overall := p.Overall(train)
	for k := range p.Clients() {
		skew := p.Skew(k)
		member := Member{Name: p.Name(k), Train: p.Size(k), Noise: skew.Variance, Turned: skew.Quarter}
		if train.Labels != nil {
			member.Histogram = p.Histogram(train, k)
			member.EMD = EMD(member.Histogram, overall)
		}
		if d.Test != nil {
			member.Test = d.Test.Size(k)
		}
		m.Members = append(m.Members, member)
	}
	return m
}

func (p *Partition) part(e *Examples) Part {
	sizes := make([]int, p.Clients())
	for k := range sizes {
		sizes[k] = p.Size(k)
	}
	slices.Sort(sizes)
	part := Part{Samples: p.Samples, Dropped: p.Dropped(), Digest: p.Digest()}
	if n := len(sizes); n > 0 {
		part.Smallest, part.Median, part.Largest = sizes[0], sizes[n/2], sizes[n-1]
	}
	if e.Labels != nil {
		part.EMD = p.MeanEMD(e)
	}
	return part
}

// Digest returns the SHA-256 of the lists, in hexadecimal: of the number of clients and samples, every list's length,
// then its rows, all as little-endian 32-bit numbers. Names and skews are not part of it.
func (p *Partition) Digest() string {
	h := sha256.New()
	buf := make([]byte, 0, 1<<12)
	put := func(v int32) {
		if len(buf) == cap(buf) {
			h.Write(buf)
			buf = buf[:0]
		}
		buf = binary.LittleEndian.AppendUint32(buf, uint32(v))
	}
	put(int32(p.Clients()))
	put(int32(p.Samples))
	for k := range p.Clients() {
		rows := p.Rows(k)
		put(int32(len(rows)))
		for _, r := range rows {
			put(r)
		}
	}
	h.Write(buf)
	return hex.EncodeToString(h.Sum(nil))
}

// WriteText prints the manifest as a table: a line for the whole, then one for each of the first most members with its
// counts of every class (at most 12 classes; 0 for most prints all members).
func (m *Manifest) WriteText(w io.Writer, most int) error {
	if most == 0 {
		most = len(m.Members)
	}
	fmt.Fprintf(w, "%s, %s, seed %d: %d members hold %d of %d training samples",
		m.Data, m.Scheme, m.Seed, len(m.Members), m.Train.Samples-m.Train.Dropped-m.Server, m.Train.Samples)
	if m.Test != nil {
		fmt.Fprintf(w, " and %d of %d test samples", m.Test.Samples-m.Test.Dropped, m.Test.Samples)
	}
	if m.Server > 0 {
		fmt.Fprintf(w, ", the server %d", m.Server)
	}
	fmt.Fprintf(w, "\nsizes %d to %d, median %d", m.Train.Smallest, m.Train.Largest, m.Train.Median)
	if m.Classes != nil {
		fmt.Fprintf(w, "; label skew (EMD, 0 to 2) %.3f", m.Train.EMD)
	}
	fmt.Fprint(w, "\n\n")

	columns := min(len(m.Classes), 12)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "member\ttrain\ttest\t")
	if m.Classes != nil {
		fmt.Fprint(t, "EMD\t")
	}
	for _, c := range m.Classes[:columns] {
		fmt.Fprintf(t, "%.10s\t", c)
	}
	fmt.Fprintln(t)
	for _, member := range m.Members[:min(most, len(m.Members))] {
		fmt.Fprintf(t, "%s\t%d\t%d\t", member.Name, member.Train, member.Test)
		if m.Classes != nil {
			fmt.Fprintf(t, "%.2f\t", member.EMD)
		}
		for _, n := range member.Histogram[:min(columns, len(member.Histogram))] {
			if n == 0 {
				fmt.Fprint(t, "·\t")
			} else {
				fmt.Fprintf(t, "%d\t", n)
			}
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if hidden := len(m.Members) - most; hidden > 0 {
		fmt.Fprintf(w, "… and %d more members\n", hidden)
	}
	if hidden := len(m.Classes) - columns; hidden > 0 {
		fmt.Fprintf(w, "… and %d more classes\n", hidden)
	}
	return nil
}

// String returns the scheme and its parameters in one line, such as "classes per_client=2 clients=100".
func (s Scheme) String() string {
	var b strings.Builder
	b.WriteString(s.Name)
	for _, f := range s.fields() {
		if f.set {
			fmt.Fprintf(&b, " %s=%v", f.name, f.value)
		}
	}
	fmt.Fprintf(&b, " clients=%d", s.Clients)
	if s.Server > 0 {
		fmt.Fprintf(&b, " server=%d", s.Server)
	}
	return b.String()
}
