package journal_test

import (
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

// BenchmarkAppend is bound by the disk's sync; with many appenders one sync
// serves several.
func BenchmarkAppend(b *testing.B) {
	for _, bb := range []struct {
		name     string
		parallel int
	}{{"one", 1}, {"many", 32}} {
		b.Run(bb.name, func(b *testing.B) {
			j, err := journal.Create(b.TempDir(), journal.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.SetParallelism(bb.parallel)
			if bb.parallel == 1 {
				for b.Loop() {
					if _, err := j.Append("round.closed", round{Round: 1}); err != nil {
						b.Fatal(err)
					}
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := j.Append("round.closed", round{Round: 1}); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	j, err := journal.Create(dir, journal.Options{FS: faultfs.New(journal.OS())})
	if err != nil {
		b.Fatal(err)
	}
	entries := make([]journal.Entry, 10000)
	for i := range entries {
		entries[i] = journal.Entry{Kind: "round.closed", Body: round{Round: i, Note: "a note of some length, as records have them"}}
	}
	if _, err := j.AppendAll(entries); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for _, err := range j.Records() {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(entries)), "ns/record")
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}
