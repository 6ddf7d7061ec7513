package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"
)

const (
	// FileName is the journal's file in the folder of its run.
	FileName = "journal.jsonl"
	// LockName is the file in the run's folder whose lock the writer holds.
	LockName = "lock"
	// Format and Version stand in the header of every journal.
	Format  = "cohort-journal"
	Version = 1
	// KindOpened is the kind of record 0, the header.
	KindOpened = "journal.opened"
	// KindCut is the kind of the record that [Options.FromLastGood] leaves
	// where it moved records aside; its body is a [Cut].
	KindCut = "journal.cut"
)

var (
	// ErrClosed says that the journal has been closed.
	ErrClosed = errors.New("journal is closed")
	// ErrExists says that a folder has a journal already.
	ErrExists = errors.New("journal exists already")
	// ErrEmpty says that a journal has not even its header: its run was
	// stopped before it began, and there is nothing to go on from.
	ErrEmpty = errors.New("journal holds no complete record")
)

// Options say how to open a journal. The zero value is ready for use.
type Options struct {
	// FS is the file system; nil means [OS].
	FS FS
	// Now is the clock for the time in the records; nil means [time.Now].
	Now func() time.Time
	// Run is the identity of the run. Create writes it into the header; Open
	// refuses the journal of another run, unless Run is empty.
	Run string
	// FromLastGood makes Open accept a journal with a damaged record: that
	// record and everything behind it are moved to a file beside the journal,
	// and a record of kind [KindCut] says so.
	FromLastGood bool
	// Key fetches the key of sealed records, see [Entry]. It is called when the first of them is written or read, and again if it
	// failed; nil means that there is none.
	Key func() ([32]byte, error)
}

// A Header is the body of record 0.
type Header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Run     string `json:"run"`
}

// A Head is the newest record of a journal. It stands for the whole of it.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash Hash   `json:"hash"`
}

// A Recovery tells what [Open] found at the end of the journal.
type Recovery struct {
	// CutBytes is the length of an incomplete last record that was cut off at
	// byte CutAt. It is 0 after a clean end.
	CutBytes int64
	CutAt    int64
	// Damage is the wrong record that [Options.FromLastGood] passed over, or
	// nil, and Aside the file that it was moved to with all behind it.
	Damage *DamageError
	Aside  string
}

// String says in one line what was found, or "" after a clean end.
func (r Recovery) String() string {
	switch {
	case r.Damage != nil:
		return fmt.Sprintf("%v; it and all behind it were moved to %s", r.Damage, r.Aside)
	case r.CutBytes > 0:
		return fmt.Sprintf("journal: an incomplete last record of %d bytes was cut off at byte %d", r.CutBytes, r.CutAt)
	}
	return ""
}

// A Cut is the body of a record of kind [KindCut].
type Cut struct {
	Offset int64  `json:"offset"` // byte at which the damaged record began
	Bytes  int64  `json:"bytes"`  // how many bytes were moved aside
	Aside  string `json:"aside"`  // file beside the journal that holds them
	Damage string `json:"damage"` // what was wrong
}

// An Entry is a record to be: its kind and what encoding/json makes of Body.
type Entry struct {
	Kind string
	Body any
	// Seal, if above 0, hides kind, time and body from whoever lacks the key of the journal, and of their length all but how many
	// times Seal bytes it takes to hold them.
	Seal int
	// Fill, if above 0, hides how many sealed records were written since the last entry with it: so many empty ones are written
	// before this one that the number of sealed records in the journal, this one included, is a multiple of Fill. They are as
	// long as if they were sealed with Filler.
	Fill, Filler int
}

// A Journal appends to the journal of one folder, whose lock it holds.
// Its methods may be called from many goroutines.
type Journal struct {
	path     string
	fsys     FS
	now      func() time.Time
	file     File
	lock     io.Closer
	header   Header
	recovery Recovery
	key      keyring

	// commit is held while a group of records is written and synced. Whoever
	// gets it commits everything that has queued up until then.
	commit sync.Mutex
	broken bool // the file may hold bytes behind size: cut before writing
	tail   tail // of the file

	mu    sync.Mutex // guards what follows; never held during input or output
	queue []*request
	head  Head
	size  int64
	ended bool
	marks []mark
	stats Stats
}

// Stats are what a journal has done since it was opened.
type Stats struct {
	Records  uint64        // appended
	Syncs    uint64        // several appends may share one
	SyncTime time.Duration // spent in writing and syncing
}

// Add adds those of another journal.
func (s *Stats) Add(o Stats) {
	s.Records, s.Syncs, s.SyncTime = s.Records+o.Records, s.Syncs+o.Syncs, s.SyncTime+o.SyncTime
}

// Stats returns what the journal has done since it was opened.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stats
}

// A mark is where a record begins, kept of every [markEvery]th so that [Journal.From]
// need not read a long journal from the start.
type mark struct {
	seq    uint64
	offset int64
	prev   Hash
}

const markEvery = 1024

// A request is the entries of one call to Append, waiting for their commit.
type request struct {
	entries []Entry
	records []Record // Seq, Time, Prev and Hash are set by the commit
	err     error
	done    bool
}

// Create makes the journal of a new run in dir, which is made if need be, and
// locks dir. It fails with [ErrExists] if there is a journal with at least a
// complete header, and with a *[LockedError] if another writer is at work.
func Create(dir string, o Options) (*Journal, error) {
	fsys := o.fs()
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return open(dir, o, func(j *Journal) error {
		info, err := j.file.Stat()
		if err != nil {
			return err
		}
		_, err = NewScanner(io.NewSectionReader(j.file, 0, info.Size()), j.path).Next()
		if info.Size() > 0 && !errors.Is(err, ErrIncomplete) {
			return ErrExists
		}
		j.broken = true // cuts what a killed Create left
		j.header, j.key.run = Header{Format: Format, Version: Version, Run: o.Run}, o.Run
		if _, err := j.Append(KindOpened, j.header); err != nil {
			return err
		}
		// The entry of the file, and that of the folder in case it is new.
		return errors.Join(fsys.SyncDir(dir), fsys.SyncDir(filepath.Dir(dir)))
	}, os.O_RDWR|os.O_CREATE)
}

// Open opens the journal in dir to append to it, and locks dir. It checks every
// record, cuts off an incomplete last one, and fails with a *[DamageError] if a
// complete record is wrong, unless o.FromLastGood is set. Other errors are
// [fs.ErrNotExist], [ErrEmpty] and *[LockedError].
func Open(dir string, o Options) (*Journal, error) {
	return open(dir, o, func(j *Journal) error { return j.recover(o) }, os.O_RDWR)
}

// OpenOrCreate opens the journal in dir to append to it, or makes it if there
// is none, or one that was killed before its header was complete.
func OpenOrCreate(dir string, o Options) (*Journal, error) {
	j, err := Open(dir, o)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrEmpty) {
		return Create(dir, o)
	}
	return j, err
}

func (o Options) fs() FS {
	if o.FS == nil {
		return OS()
	}
	return o.FS
}

// open does what Create and Open share; begin is what differs.
func open(dir string, o Options, begin func(*Journal) error, flag int) (_ *Journal, err error) {
	j := &Journal{path: filepath.Join(dir, FileName), fsys: o.fs(), now: o.Now, key: keyring{fetch: o.Key}}
	if j.now == nil {
		j.now = time.Now
	}
	if flag&os.O_CREATE == 0 { // no lock file where there is no journal
		if _, err := j.fsys.Stat(j.path); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
	}
	j.lock, err = j.fsys.Lock(filepath.Join(dir, LockName))
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j.file, err = j.fsys.OpenFile(j.path, flag, 0o644)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.lock.Close())
	}
	if err := begin(j); err != nil {
		err = fmt.Errorf("open journal %s: %w", j.path, err)
		return nil, errors.Join(err, j.file.Close(), j.lock.Close())
	}
	return j, nil
}

// recover reads the journal through and makes its end fit to be appended to.
func (j *Journal) recover(o Options) error {
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	s := NewScanner(io.NewSectionReader(j.file, 0, info.Size()), j.path)
	for err == nil {
		var r Record
		r, err = s.Next()
		if err == nil {
			j.mark(r)
			j.tail.add(r)
		}
		if err == nil && r.Seq == 0 {
			if j.header, err = readHeader(r); err != nil {
				return err
			}
			j.key.run = j.header.Run
		}
	}
	head, some := s.Head()
	var damage *DamageError
	switch {
	case errors.As(err, &damage) && some && o.FromLastGood:
		j.recovery.Damage = damage
	case damage != nil && some:
		return fmt.Errorf("%w; records 0 to %d are good, and can be gone on from when it is asked for (--from-last-good)", damage, head.Seq)
	case damage != nil:
		return damage
	case !some:
		return ErrEmpty
	case err != io.EOF && !errors.Is(err, ErrIncomplete):
		return err
	}
	if o.Run != "" && j.header.Run != o.Run {
		return fmt.Errorf("belongs to the run %q, not to %q", j.header.Run, o.Run)
	}
	j.head, j.size = head, s.Offset()
	tail := info.Size() - j.size
	if damage != nil {
		return j.setAside(damage, tail)
	}
	if tail > 0 {
		j.recovery.CutAt, j.recovery.CutBytes = j.size, tail
	}
	// Even a clean end may lie only in the page cache of a killed writer.
	return j.cut()
}

// setAside moves the last tail bytes of the file to a file beside it.
func (j *Journal) setAside(damage *DamageError, tail int64) error {
	aside := filepath.Join(filepath.Dir(j.path), fmt.Sprintf("journal.cut-%d.jsonl", damage.Seq))
	for n := 2; ; n++ { // an earlier one stays
		_, err := j.fsys.Stat(aside)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		aside = filepath.Join(filepath.Dir(j.path), fmt.Sprintf("journal.cut-%d.%d.jsonl", damage.Seq, n))
	}
	err := WriteFile(j.fsys, aside, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(j.file, j.size, tail))
		return err
	})
	if err != nil {
		return err
	}
	if err := j.cut(); err != nil {
		return err
	}
	j.recovery.Aside = aside
	_, err = j.Append(KindCut, Cut{Offset: damage.Offset, Bytes: tail, Aside: filepath.Base(aside), Damage: damage.What})
	return err
}

// cut makes the file end behind the last whole record, durably.
func (j *Journal) cut() error {
	if err := j.file.Truncate(j.size); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.broken = false
	return nil
}

func readHeader(r Record) (Header, error) {
	var h Header
	if r.Kind != KindOpened {
		return h, fmt.Errorf("its first record is of kind %q, not %q: this is no journal", r.Kind, KindOpened)
	}
	if err := r.Decode(&h); err != nil {
		return h, err
	}
	if h.Format != Format {
		return h, fmt.Errorf("has format %q, not %q", h.Format, Format)
	}
	if h.Version != Version {
		return h, fmt.Errorf("has version %d of the format; this program reads version %d: use the program that wrote it", h.Version, Version)
	}
	return h, nil
}

// Append writes one record and returns when it is durable. Body is what
// encoding/json accepts; it panics if kind is not [ValidKind].
//
// After an error the record is not in the journal, and neither is any other of
// the same commit. The journal stays usable: it has been cut back to the last
// whole record, or will be before the next write. See [IsFull].
func (j *Journal) Append(kind string, body any) (Record, error) {
	recs, err := j.AppendAll([]Entry{{Kind: kind, Body: body}})
	if err != nil {
		return Record{}, err
	}
	return recs[0], nil
}

// AppendAll writes records one after the other with a single sync. If it fails,
// none is in the journal; but a crash during the call may leave only the first
// few.
func (j *Journal) AppendAll(entries []Entry) ([]Record, error) {
	req := &request{records: make([]Record, len(entries)), entries: entries}
	for i, e := range entries {
		if !ValidKind(e.Kind) {
			panic(fmt.Sprintf("journal: invalid kind %q", e.Kind))
		}
		body, err := marshal(e.Body)
		if err != nil {
			return nil, fmt.Errorf("append %s to journal: %w", e.Kind, err)
		}
		if n := len(body); n > MaxLine-1024 { // leaves room for the other members
			return nil, fmt.Errorf("append %s to journal: a body of %d bytes is above the limit of %d", e.Kind, n, MaxLine-1024)
		}
		if e.Seal > 0 {
			if _, err := j.key.get(); err != nil {
				return nil, fmt.Errorf("append %s to journal: %w", e.Kind, err)
			}
			if n := sealedLen(len(body), e.Seal); n > MaxLine-1024 {
				return nil, fmt.Errorf("append %s to journal: a body of %d bytes is above the limit of %d once it is sealed", e.Kind, len(body), MaxLine-1024)
			}
		}
		req.records[i] = Record{Kind: e.Kind, Body: body}
	}
	j.mu.Lock()
	j.queue = append(j.queue, req)
	j.mu.Unlock()

	j.commit.Lock()
	if !req.done { // else somebody took it along
		j.commitQueue()
	}
	j.commit.Unlock()
	if req.err != nil {
		return nil, req.err
	}
	return req.records, nil
}

// marshal is json.Marshal without the escapes that only HTML needs.
func marshal(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// commitQueue writes everything that waits. The caller holds commit.
func (j *Journal) commitQueue() {
	j.mu.Lock()
	batch, head, size, ended := j.queue, j.head, j.size, j.ended
	j.queue = nil
	j.mu.Unlock()

	w := lines{j: j, head: head, offset: size, empty: size == 0, tail: j.tail}
	for _, req := range batch {
		for i := range req.records {
			w.add(&req.records[i], req.entries[i])
		}
	}
	buf := w.buf
	err := ErrClosed
	began := time.Now()
	if !ended {
		err = j.write(buf)
	}
	took := time.Since(began)
	for _, req := range batch {
		req.done = true
		if err != nil {
			req.records, req.err = nil, fmt.Errorf("append to journal %s: %w", j.path, err)
		}
	}
	if err == nil {
		j.tail = w.tail
		j.mu.Lock()
		j.head, j.size = w.head, size+int64(len(buf))
		if len(buf) > 0 {
			j.stats.Syncs++
			j.stats.SyncTime += took
		}
		j.stats.Records += uint64(w.n)
		j.marks = append(j.marks, w.marks...)
		j.mu.Unlock()
	}
}

func (j *Journal) mark(r Record) {
	if r.Seq%markEvery == 0 {
		j.marks = append(j.marks, mark{r.Seq, r.Offset, r.Prev})
	}
}

// write makes buf the durable end of the file, or leaves the file as it was.
func (j *Journal) write(buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	if j.broken {
		if err := j.cut(); err != nil {
			return fmt.Errorf("cut off what an earlier failure left: %w", err)
		}
	}
	_, err := j.file.WriteAt(buf, j.size)
	if err == nil {
		if err = j.file.Sync(); err == nil {
			return nil
		}
		err = fmt.Errorf("sync: %w", err)
	}
	// Pages whose sync failed count as clean, so syncing again would prove
	// nothing about them. Those of older records have been synced before; the
	// rest is cut off.
	j.broken = true
	if cutErr := j.cut(); cutErr != nil {
		return fmt.Errorf("%w (and cutting back to the last whole record failed: %w; this is tried again)", err, cutErr)
	}
	return fmt.Errorf("%w (the journal is whole up to its last record)", err)
}

// Head returns number and hash of the newest durable record.
func (j *Journal) Head() Head {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// Header returns the body of record 0.
func (j *Journal) Header() Header { return j.header }

// Recovery returns what [Open] found at the end of the journal.
func (j *Journal) Recovery() Recovery { return j.recovery }

// Path returns the path of the journal's file.
func (j *Journal) Path() string { return j.path }

// Records returns the records that are durable at the moment when the iteration
// begins, in order, sealed ones opened; only those of the given kinds, if any
// are given. An error ends the iteration.
func (j *Journal) Records(kinds ...string) iter.Seq2[Record, error] { return j.From(0, kinds...) }

// From is Records, but begins with the record that has the number seq.
func (j *Journal) From(seq uint64, kinds ...string) iter.Seq2[Record, error] {
	return j.key.opened(j.Lines(seq), kinds)
}

// Lines returns the records from the number seq on as they stand in the file:
// sealed ones stay sealed.
func (j *Journal) Lines(seq uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		j.mu.Lock()
		size := j.size
		i := sort.Search(len(j.marks), func(i int) bool { return j.marks[i].seq > seq })
		m := j.marks[i-1] // the first mark is record 0
		j.mu.Unlock()
		s := NewScanner(io.NewSectionReader(j.file, m.offset, size-m.offset), j.path)
		s.next, s.offset, s.prev = m.seq, m.offset, m.prev
		records(s, nil, func(r Record, err error) bool {
			return err == nil && r.Seq < seq || yield(r, err)
		})
	}
}

// Close gives the lock back. Appends that wait are written first; later ones
// fail with [ErrClosed], and so does a second Close.
func (j *Journal) Close() error {
	j.commit.Lock()
	defer j.commit.Unlock()
	j.commitQueue()
	j.mu.Lock()
	ended := j.ended
	j.ended = true
	j.mu.Unlock()
	if ended {
		return ErrClosed
	}
	return errors.Join(j.file.Close(), j.lock.Close())
}
