package record

import (
	"database/sql"
	"fmt"
	"math"
	"time"
)

// A Point is one value of a series.
type Point struct {
	Round int     `json:"round"`
	Step  int     `json:"step,omitempty"`
	Value float64 `json:"value"`
}

// Series returns the values of a metric in the order of rounds and steps.
func (m *Metrics) Series(name, key string) ([]Point, error) {
	return collect(m, func(rows *sql.Rows) (p Point, err error) {
		var v sql.NullFloat64
		err = rows.Scan(&p.Round, &p.Step, &v)
		p.Value = orNaN(v)
		return p, err
	}, "SELECT round, step, value FROM metrics WHERE name = ? AND key = ? ORDER BY round, step", name, key)
}

// Names returns the names of all metrics, sorted.
func (m *Metrics) Names() ([]string, error) {
	return collect(m, scanString, "SELECT DISTINCT name FROM metrics ORDER BY name")
}

// Keys returns the keys that a metric has values for, sorted.
func (m *Metrics) Keys(name string) ([]string, error) {
	return collect(m, scanString, "SELECT DISTINCT key FROM metrics WHERE name = ? ORDER BY key", name)
}

// Latest returns the value of the last round and step; ok is false if there is
// none.
func (m *Metrics) Latest(name, key string) (v Metric, ok bool, err error) {
	list, err := collect(m, func(rows *sql.Rows) (Metric, error) {
		v := Metric{Name: name, Key: key}
		var f sql.NullFloat64
		err := rows.Scan(&v.Round, &v.Step, &f)
		v.Value = orNaN(f)
		return v, err
	}, "SELECT round, step, value FROM metrics WHERE name = ? AND key = ? ORDER BY round DESC, step DESC LIMIT 1", name, key)
	if err != nil || len(list) == 0 {
		return Metric{}, false, err
	}
	return list[0], true, nil
}

// Events returns the events of the given levels, or all if none is given, in
// the order of the journal.
func (m *Metrics) Events(levels ...Level) ([]Event, error) {
	query, args := "SELECT round, time, level, client, message FROM events", []any(nil)
	for i, l := range levels {
		query += map[bool]string{true: " WHERE level IN (?", false: ", ?"}[i == 0]
		args = append(args, l)
	}
	if len(levels) > 0 {
		query += ")"
	}
	return collect(m, func(rows *sql.Rows) (e Event, err error) {
		var when string
		if err := rows.Scan(&e.Round, &when, &e.Level, &e.Client, &e.Message); err != nil {
			return e, err
		}
		e.Time, err = time.Parse(time.RFC3339Nano, when)
		return e, err
	}, query+" ORDER BY seq, rowid", args...)
}

// A Failure is how often a client was told of in warnings and errors.
type Failure struct {
	Client  string `json:"client"`
	Count   int    `json:"count"`
	Last    int    `json:"last"`    // round of the last one
	Message string `json:"message"` // what the last one said
}

// Failures returns the clients of which warnings and errors tell, the most
// frequent first.
func (m *Metrics) Failures() ([]Failure, error) {
	// SQLite takes columns that are not aggregated from the row of the maximum.
	return collect(m, func(rows *sql.Rows) (f Failure, err error) {
		var last int64
		err = rows.Scan(&f.Client, &f.Count, &last, &f.Last, &f.Message)
		return f, err
	}, `SELECT client, count(*), max(rowid), round, message FROM events
		WHERE client <> '' AND level IN ('warn', 'error') GROUP BY client ORDER BY count(*) DESC, client`)
}

func collect[T any](m *Metrics, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := m.db.Query(query, args...)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read metrics: %w", err)
		}
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return list, nil
}

func scanString(rows *sql.Rows) (s string, err error) {
	err = rows.Scan(&s)
	return s, err
}

func orNaN(v sql.NullFloat64) float64 {
	if !v.Valid {
		return math.NaN()
	}
	return v.Float64
}
