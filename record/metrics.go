package record

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/journal"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// metricsVersion is the user_version of the database. An older one is made
// again from the journal.
const metricsVersion = 1

const schema = `
CREATE TABLE metrics (
	name TEXT NOT NULL, key TEXT NOT NULL, round INTEGER NOT NULL, step INTEGER NOT NULL,
	value REAL, -- NULL is NaN
	PRIMARY KEY (name, key, round, step)
) WITHOUT ROWID;
CREATE TABLE events (
	seq INTEGER NOT NULL, -- number of the journal's record
	round INTEGER NOT NULL, time TEXT NOT NULL, level TEXT NOT NULL, client TEXT NOT NULL, message TEXT NOT NULL,
	UNIQUE (round, level, client, message)
);
-- One row: the last record of the journal whose metrics and events are here.
CREATE TABLE position (seq INTEGER NOT NULL, hash TEXT NOT NULL);
INSERT INTO position VALUES (-1, '');
PRAGMA user_version = 1;
`

// Metrics are the metrics and events of a run in an SQLite database: a copy of
// what the journal says, for queries. The same event of the same round, told
// again after a crash, is kept once.
type Metrics struct {
	db      *sql.DB
	rebuilt string
}

// OpenMetrics opens the database at path and brings it up to the journal. If it
// is lost, damaged, of another version, or of another or a cut journal, it is
// made again; see [Metrics.Rebuilt].
func OpenMetrics(path string, j *journal.Journal) (*Metrics, error) {
	_, err := os.Stat(path)
	lost := errors.Is(err, fs.ErrNotExist)
	m, why := openDB(path)
	if why == nil {
		why = m.follows(j)
	}
	if why == nil {
		why = m.Update(j)
	}
	if why == nil {
		return m, nil
	}
	if m != nil {
		why = errors.Join(why, m.Close())
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("make the metrics again: %w", err)
		}
	}
	if m, err = openDB(path); err == nil {
		err = m.init(path)
	}
	if err == nil {
		err = m.Update(j)
	}
	if err != nil {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
		return nil, err
	}
	if !lost || j.Head().Seq > 0 {
		m.rebuilt = why.Error()
		if lost {
			m.rebuilt = "it was lost"
		}
	}
	return m, nil
}

// ReadMetrics reads the metrics of the run in dir without changing anything: a
// process may be at work on the run. It takes them from the journal, into
// memory, so they are right whatever has become of the database.
func ReadMetrics(dir string) (*Metrics, error) {
	m, err := openDB("")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(m.init(""), m.update(Read(journal.OS(), dir))); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// openDB opens the database at path, or one in memory if path is empty.
func openDB(path string) (*Metrics, error) {
	dsn := ":memory:"
	if path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("open metrics: %w", err)
		}
		abs = filepath.ToSlash(abs)
		if !strings.HasPrefix(abs, "/") { // a drive letter
			abs = "/" + abs
		}
		// It can be made again, so a commit need not wait for the disk; and
		// whoever reads does not hold up the writer.
		dsn = (&url.URL{Scheme: "file", Path: abs}).String() +
			"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)"
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open metrics %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // what is in memory belongs to its connection
	return &Metrics{db: db}, nil
}

// init makes the tables of a new database.
func (m *Metrics) init(path string) error {
	if _, err := m.db.Exec(schema); err != nil {
		return fmt.Errorf("make metrics %s: %w", path, err)
	}
	return nil
}

// follows says why the database cannot go on from where it is, or nil.
func (m *Metrics) follows(j *journal.Journal) error {
	var check string
	if err := m.db.QueryRow("PRAGMA quick_check").Scan(&check); err != nil {
		return err
	}
	if check != "ok" {
		return errors.New(check)
	}
	var version int
	if err := m.db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version != metricsVersion {
		return fmt.Errorf("it has version %d, not %d", version, metricsVersion)
	}
	seq, hash, err := m.position()
	if err != nil || seq < 0 {
		return err
	}
	for r, err := range j.From(uint64(seq)) {
		if err != nil {
			return err
		}
		if r.Hash.String() == hash {
			return nil
		}
		break
	}
	return errors.New("it does not belong to this journal")
}

func (m *Metrics) position() (seq int64, hash string, err error) {
	err = m.db.QueryRow("SELECT seq, hash FROM position").Scan(&seq, &hash)
	return seq, hash, err
}

// Rebuilt says why the database had to be made again, or "" if it had not.
func (m *Metrics) Rebuilt() string { return m.rebuilt }

// Update copies what the journal has and the database has not, in one
// transaction. Drivers call it at the end of a round.
func (m *Metrics) Update(j *journal.Journal) error {
	seq, _, err := m.position()
	if err != nil {
		return fmt.Errorf("update metrics: %w", err)
	}
	return m.update(j.From(uint64(seq + 1)))
}

func (m *Metrics) update(records iter.Seq2[journal.Record, error]) (err error) {
	tx, err := m.db.BeginTx(context.Background(), nil)
	if err != nil {
		return fmt.Errorf("update metrics: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("update metrics: %w", errors.Join(err, tx.Rollback()))
		}
	}()
	addMetric, err := tx.Prepare("INSERT OR REPLACE INTO metrics (name, key, round, step, value) VALUES (?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	addEvent, err := tx.Prepare("INSERT OR IGNORE INTO events (seq, round, time, level, client, message) VALUES (?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	last, some := journal.Record{}, false
	for r, err := range records {
		if err != nil {
			return err
		}
		body, err := readBody(r)
		if err != nil {
			return err
		}
		for _, v := range body.Metrics {
			if _, err := addMetric.Exec(v.Name, v.Key, v.Round, v.Step, null(v.Value)); err != nil {
				return err
			}
		}
		for _, e := range body.Events {
			if _, err := addEvent.Exec(r.Seq, e.Round, e.Time.UTC().Format(time.RFC3339Nano), e.Level, e.Client, e.Message); err != nil {
				return err
			}
		}
		last, some = r, true
	}
	if !some {
		return tx.Rollback()
	}
	if _, err := tx.Exec("UPDATE position SET seq = ?, hash = ?", last.Seq, last.Hash.String()); err != nil {
		return err
	}
	return tx.Commit()
}

// null makes NULL of NaN, which SQLite does not keep.
func null(v float64) sql.NullFloat64 { return sql.NullFloat64{Float64: v, Valid: !math.IsNaN(v)} }

// Close closes the database.
func (m *Metrics) Close() error { return m.db.Close() }
