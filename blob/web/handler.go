package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/journal"
)

// HandlerOptions say how blobs are served.
type HandlerOptions struct {
	// Who says who sends a request, and false if nobody known does. Required.
	Who func(*http.Request) (who string, ok bool)
	// Permits say who may do what. Required.
	Permits *Permits
	// Stall is for how long a peer may let a piece of 64 KiB wait before it is
	// cut off; 0 means 30 seconds.
	Stall time.Duration
	// CacheBytes is how much memory chunks take that are being read; who asks
	// for more waits. 0 means 128 MiB.
	CacheBytes int64
	// Notes is a folder in which the handler notes how far long uploads have
	// come, so that they go on after a restart; empty means that they begin
	// again. FS is its file system; nil means that of the system.
	Notes string
	FS    journal.FS
	// Log gets what goes wrong on this side; nil means [slog.Default].
	Log *slog.Logger
}

// A Handler serves the requests of the package comment, all below /blob/.
type Handler struct {
	store  blob.Store
	o      HandlerOptions
	mux    *http.ServeMux
	chunks *cache
	lists  *lists
	notes  *notes

	received, sent counter
}

// NewHandler returns a handler over a store. It panics without Who or Permits.
func NewHandler(s blob.Store, o HandlerOptions) *Handler {
	if o.Who == nil || o.Permits == nil {
		panic("web: NewHandler needs Who and Permits")
	}
	o.Stall = cmp.Or(o.Stall, 30*time.Second)
	o.CacheBytes = cmp.Or(o.CacheBytes, 128<<20)
	o.Log = cmp.Or(o.Log, slog.Default())
	h := &Handler{store: s, o: o, mux: http.NewServeMux()}
	h.chunks = newCache(o.CacheBytes, func(ctx context.Context, c blob.Hash, buf []byte) ([]byte, error) {
		return blob.GetInto(ctx, s, c, buf)
	})
	h.lists = &lists{store: s, m: make(map[blob.Hash]*listing)}
	h.notes = newNotes(o.Notes, o.FS, o.Log)
	h.mux.HandleFunc("POST /blob/{hash}", h.asked(h.postManifest))
	h.mux.HandleFunc("GET /blob/{hash}", h.asked(h.getManifest))
	h.mux.HandleFunc("PUT /blob/chunk/{hash}", h.asked(h.putChunk))
	h.mux.HandleFunc("HEAD /blob/chunk/{hash}", h.asked(h.headChunk))
	h.mux.HandleFunc("GET /blob/chunk/{hash}", h.asked(h.getChunk))
	h.mux.HandleFunc("/", notFound)
	return h
}

// ServeHTTP serves one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Received returns the bytes of manifests and chunks that have come in.
func (h *Handler) Received() int64 { return h.received.Load() }

// Sent returns the bytes of manifests and chunks that have gone out.
func (h *Handler) Sent() int64 { return h.sent.Load() }

// notFound is the answer to all that is unknown or forbidden.
func notFound(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "not found", http.StatusNotFound)
}

// A request is one whose sender and names are known.
type request struct {
	*http.Request
	who   string
	hash  blob.Hash // the last element of the path
	out   http.ResponseWriter
	ctl   *http.ResponseController
	stall time.Duration
}

// asked reads who and what, and answers as one for all if it cannot.
func (h *Handler) asked(f func(request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, ok := h.o.Who(r)
		hash, err := blob.ParseHash(r.PathValue("hash"))
		if !ok || err != nil {
			notFound(w, r)
			return
		}
		q := request{r, who, hash, w, http.NewResponseController(w), h.o.Stall}
		defer func() { // the connection may serve others after us
			_ = q.ctl.SetReadDeadline(time.Time{})
			_ = q.ctl.SetWriteDeadline(time.Time{})
		}()
		f(q)
	}
}

// blob returns the blob whose chunk is asked for.
func (q request) blob() (blob.Hash, bool) {
	h, err := blob.ParseHash(q.URL.Query().Get("blob"))
	return h, err == nil
}

// refuse answers with an error. The rest of the body is not read.
func (q request) refuse(status int, format string, args ...any) {
	if status == http.StatusRequestEntityTooLarge {
		q.out.Header().Set("Connection", "close")
	}
	http.Error(q.out, fmt.Sprintf(format, args...), status)
}

// Read reads the body under the deadline for one piece.
func (q request) Read(p []byte) (int, error) {
	_ = q.ctl.SetReadDeadline(time.Now().Add(q.stall)) // not every connection has deadlines
	return q.Body.Read(p)
}

// send writes in pieces, each under its deadline.
func (q request) send(p []byte, count *counter) {
	for len(p) > 0 {
		_ = q.ctl.SetWriteDeadline(time.Now().Add(q.stall))
		n, err := q.out.Write(p[:min(len(p), piece)])
		count.Add(int64(n))
		if err != nil {
			return // the reader asks for the rest
		}
		p = p[n:]
	}
}

// piece is how much is read and written at once.
const piece = 64 << 10

var pieces = sync.Pool{New: func() any { return new([piece]byte) }}

// failed answers with what the store said, and logs what is no fault of the peer's.
func (h *Handler) failed(q request, what string, err error) {
	var full *blob.FullError
	switch {
	case errors.Is(err, blob.ErrNotFound):
		notFound(q.out, q.Request)
		return
	case errors.Is(err, blob.ErrMismatch):
		q.refuse(http.StatusUnprocessableEntity, "%v", err)
		return
	case errors.As(err, &full):
		q.out.Header().Set("Retry-After", "30")
		q.refuse(http.StatusInsufficientStorage, "the store is full: %d bytes more do not fit", full.Want)
	default:
		q.refuse(http.StatusInternalServerError, "the store failed; its owner finds the cause in the log")
	}
	if q.Context().Err() == nil {
		h.o.Log.Error("blob: "+what, "who", q.who, "object", q.hash.String(), "err", err)
	}
}

// answer is the body of the answer to a manifest.
type answer struct {
	Missing [][2]int `json:"missing"` // half-open ranges of chunks
}

func (h *Handler) postManifest(q request) {
	u := h.o.Permits.upload(q.who, q.hash)
	if u == nil {
		notFound(q.out, q.Request)
		return
	}
	want := blob.ManifestLen(u.bytes)
	if q.ContentLength > want {
		q.refuse(http.StatusRequestEntityTooLarge, "a manifest of %d bytes; a blob of the permitted %d bytes has one of %d", q.ContentLength, u.bytes, want)
		return
	}
	body := make([]byte, want+1)
	n, err := io.ReadFull(q, body)
	h.received.Add(int64(n))
	switch {
	case int64(n) > want:
		q.refuse(http.StatusRequestEntityTooLarge, "the manifest is longer than the %d bytes that a blob of the permitted %d bytes has", want, u.bytes)
		return
	case err != io.ErrUnexpectedEOF && err != io.EOF || int64(n) < want:
		q.refuse(http.StatusBadRequest, "the manifest ended after %d of %d bytes", n, want)
		return
	}
	body = body[:n]
	if got := blob.Sum(body); got != q.hash {
		q.refuse(http.StatusUnprocessableEntity, "the manifest hashes to %v", got)
		return
	}
	m, err := blob.DecodeManifest(body)
	if err != nil || m.Bytes != u.bytes {
		q.refuse(http.StatusUnprocessableEntity, "this is no manifest of a blob of the permitted %d bytes", u.bytes)
		return
	}
	if err := h.begin(q.Context(), u, m); err != nil {
		h.failed(q, "begin upload", err)
		return
	}
	missing, complete := u.missing()
	if complete {
		h.finish(q, u)
		return
	}
	q.out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(q.out).Encode(answer{missing})
}

// begin takes the manifest, pins what belongs to it, and looks what is there of
// what the member sent.
func (h *Handler) begin(ctx context.Context, u *upload, m blob.Manifest) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return blob.ErrNotFound
	}
	if u.list == nil {
		u.list = newListing(m)
		if k, ok := h.store.(blob.Keeper); ok {
			u.unpin = k.Pin(append([]blob.Hash{u.key.blob}, m.Chunks...)...)
		}
		h.notes.load(u)
	}
	for c := range u.have {
		ok, err := h.store.Has(ctx, c)
		if err != nil {
			return err
		}
		if !ok {
			delete(u.have, c)
			u.done = false
		}
	}
	return nil
}

// missing returns which chunks have not been sent.
func (u *upload) missing() (ranges [][2]int, complete bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, c := range u.list.Chunks {
		switch n := len(ranges); {
		case u.have[c]:
		case n > 0 && ranges[n-1][1] == i:
			ranges[n-1][1]++
		default:
			ranges = append(ranges, [2]int{i, i + 1})
		}
	}
	return ranges, len(ranges) == 0
}

// finish makes the blob complete: the manifest comes last.
func (h *Handler) finish(q request, u *upload) {
	if err := blob.PutVerified(context.WithoutCancel(q.Context()), h.store, u.key.blob, u.list.Encode()); err != nil {
		h.failed(q, "store manifest", err)
		return
	}
	u.mu.Lock()
	u.done = true
	h.notes.save(u, true)
	u.mu.Unlock()
	q.out.WriteHeader(http.StatusCreated)
}

// upload finds the permit and the length of the chunk that a request is about,
// or answers that there is none.
func (h *Handler) upload(q request) (u *upload, n int64) {
	b, ok := q.blob()
	if ok {
		u = h.o.Permits.upload(q.who, b)
	}
	if u == nil {
		notFound(q.out, q.Request)
		return nil, 0
	}
	u.mu.Lock()
	list := u.list
	u.mu.Unlock()
	if list == nil {
		q.refuse(http.StatusConflict, "POST the manifest first")
		return nil, 0
	}
	if n, ok = list.chunk(q.hash); !ok {
		notFound(q.out, q.Request)
		return nil, 0
	}
	return u, n
}

const haveHeader = "Blob-Have"

func (h *Handler) headChunk(q request) {
	u, n := h.upload(q)
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var have int64
	if u.have[q.hash] {
		have = n
	} else if s := u.partial[q.hash]; s != nil {
		have = s.Len()
	}
	q.out.Header().Set(haveHeader, strconv.FormatInt(have, 10))
}

func (h *Handler) putChunk(q request) {
	u, n := h.upload(q)
	if u == nil {
		return
	}
	var from int64
	if f := q.URL.Query().Get("from"); f != "" {
		var err error
		if from, err = strconv.ParseInt(f, 10, 64); err != nil || from < 0 || from > n {
			q.refuse(http.StatusBadRequest, "from %.20q is no place in a chunk of %d bytes", f, n)
			return
		}
	}
	if q.ContentLength > n-from {
		q.refuse(http.StatusRequestEntityTooLarge, "%d bytes; %d are permitted", q.ContentLength, n-from)
		return
	}
	s, have := u.take(q.hash, from)
	if s == nil && from > 0 {
		q.out.Header().Set(haveHeader, strconv.FormatInt(have, 10))
		q.refuse(http.StatusConflict, "%d bytes of the chunk are here", have)
		return
	}
	if s == nil {
		var err error
		if s, err = blob.NewStage(q.Context(), h.store, q.hash, n); err != nil {
			h.failed(q, "begin chunk", err)
			return
		}
	}
	if !h.receive(q, u, s, n) {
		return
	}
	// The peer may be gone, but the chunk has come: it counts when it asks again.
	if err := s.Commit(context.WithoutCancel(q.Context())); err != nil {
		h.failed(q, "store chunk", err)
		return
	}
	u.mu.Lock()
	if u.ended { // revoked meanwhile
		u.mu.Unlock()
		notFound(q.out, q.Request)
		return
	}
	u.have[q.hash] = true
	complete := len(u.have) == len(u.list.index)
	h.notes.save(u, false)
	u.mu.Unlock()
	if complete {
		h.finish(q, u)
		return
	}
	q.out.WriteHeader(http.StatusNoContent)
}

// receive moves the body into the stage. If it returns false, it has answered
// and done with the stage.
func (h *Handler) receive(q request, u *upload, s blob.Stage, n int64) bool {
	buf := pieces.Get().(*[piece]byte)
	defer pieces.Put(buf)
	for {
		k, err := io.ReadFull(q, buf[:]) // TLS hands out less at a time than a file likes to be given
		h.received.Add(int64(k))
		if s.Len()+int64(k) > n {
			_ = s.Abort()
			q.refuse(http.StatusRequestEntityTooLarge, "more than the permitted %d bytes", n)
			return false
		}
		if k > 0 {
			if _, err := s.Write(buf[:k]); err != nil {
				_ = s.Abort()
				h.failed(q, "store chunk", err)
				return false
			}
		}
		switch {
		case err == nil:
		case s.Len() == n:
			return true
		default:
			have := s.Len()
			u.keep(q.hash, s)
			q.refuse(http.StatusBadRequest, "the chunk ended after %d of %d bytes", have, n)
			return false
		}
	}
}

func (h *Handler) getManifest(q request) {
	if !h.o.Permits.granted(q.who, q.hash) {
		notFound(q.out, q.Request)
		return
	}
	b, err := h.store.Get(q.Context(), q.hash)
	if err != nil {
		h.failed(q, "read manifest", err)
		return
	}
	q.out.Header().Set("Content-Type", "application/octet-stream")
	q.out.Header().Set("Content-Length", strconv.Itoa(len(b)))
	if q.Method == http.MethodGet {
		q.send(b, &h.sent)
	}
}

func (h *Handler) getChunk(q request) {
	b, ok := q.blob()
	if !ok || !h.o.Permits.granted(q.who, b) {
		notFound(q.out, q.Request)
		return
	}
	list, err := h.lists.get(q.Context(), b)
	if err != nil {
		h.failed(q, "read manifest", err)
		return
	}
	n, ok := list.chunk(q.hash)
	if !ok {
		notFound(q.out, q.Request)
		return
	}
	data, release, err := h.chunks.get(q.Context(), q.hash)
	if err != nil {
		h.failed(q, "read chunk", err)
		return
	}
	defer release()
	if int64(len(data)) != n {
		h.failed(q, "read chunk", fmt.Errorf("it has %d bytes where the manifest of %v needs %d", len(data), b, n))
		return
	}
	from, to, status := parseRange(q.Header.Get("Range"), int64(len(data)))
	head := q.out.Header()
	head.Set("Content-Type", "application/octet-stream")
	head.Set("Accept-Ranges", "bytes")
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		head.Set("Content-Range", fmt.Sprintf("bytes */%d", len(data)))
		q.refuse(status, "the chunk has %d bytes", len(data))
		return
	case http.StatusPartialContent:
		head.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
	}
	head.Set("Content-Length", strconv.FormatInt(to-from, 10))
	q.out.WriteHeader(status)
	q.send(data[from:to], &h.sent)
}
