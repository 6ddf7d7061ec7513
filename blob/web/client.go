package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cohort-learning/cohort/blob"
)

var (
	// ErrDenied says that the server has no such blob for this member: it is not
	// there, or no permit is in force. It is not tried again.
	ErrDenied = errors.New("the server has no such blob for this member, or its permit is over: ask for a permit and repeat")
	// ErrRefused says that the server does not accept what was sent. It is not
	// tried again.
	ErrRefused = errors.New("the server refuses the blob")

	errStalled = errors.New("nothing moved")
)

// A Client moves blobs between a store here and a [Handler] elsewhere. Fields
// are set before its first use; its methods may be called from many goroutines.
//
// Breaks, stalls, full stores and damaged bytes are tried again, with growing,
// random pauses, and go on where they were; only what fails Attempts times
// without a byte of progress is given up.
type Client struct {
	HTTP *http.Client
	Base string // such as "https://example.org:443", without /blob/

	Parallel int           // chunks of one blob that move at once; 0 means 4
	Attempts int           // 0 means 10
	Stall    time.Duration // for how long nothing may move; 0 means 30 seconds
	MinPause time.Duration // of the first pause; 0 means 200 ms
	MaxPause time.Duration // 0 means 15 seconds

	sent, received counter
}

// idle is for how long a connection is kept that carries nothing. Chunks of a
// blob follow one another at once; the next blob may be long in coming, and a
// connection that waits for it costs the server a hundred KiB.
const idle = 2 * time.Second

// NewClient returns a client with the default settings. The transport of hc is
// copied: it keeps some idle connections, so that chunks need no handshake each,
// for two seconds at most.
func NewClient(hc *http.Client, base string) *Client {
	c := &Client{HTTP: hc, Base: strings.TrimSuffix(base, "/")}
	if t, ok := hc.Transport.(*http.Transport); ok {
		t = t.Clone()
		t.MaxIdleConnsPerHost = cmp.Or(t.MaxIdleConnsPerHost, 16)
		if t.IdleConnTimeout == 0 || t.IdleConnTimeout > idle {
			t.IdleConnTimeout = idle
		}
		with := *hc
		with.Transport = t
		c.HTTP = &with
	}
	return c
}

// Rest closes the connections that are idle. A client that will not move anything for a while need not take a place of the
// server meanwhile.
func (c *Client) Rest() {
	c.HTTP.CloseIdleConnections()
	// Over HTTP/2 a request leaves its connection a moment after it has been answered.
	time.AfterFunc(rest, c.HTTP.CloseIdleConnections)
}

const rest = 20 * time.Millisecond

// Sent returns the bytes of manifests and chunks that have been sent, repeated
// ones included.
func (c *Client) Sent() int64 { return c.sent.Load() }

// Received returns the bytes of manifests and chunks that have come in.
func (c *Client) Received() int64 { return c.received.Load() }

// Progress is told how many bytes of a blob have been moved or need not be. It
// is called from several goroutines, one at a time, with growing numbers.
type Progress func(done, total int64)

// Upload sends a blob of the store to the server and returns when the server
// has all of it, durably. It needs a permit there. To go on after a failure,
// call it again.
func (c *Client) Upload(ctx context.Context, from blob.Store, h blob.Hash) error {
	return c.UploadProgress(ctx, from, h, nil)
}

// UploadProgress is Upload with a progress function.
func (c *Client) UploadProgress(ctx context.Context, from blob.Store, h blob.Hash, p Progress) error {
	if err := c.upload(ctx, from, h, p); err != nil {
		return fmt.Errorf("upload blob %v: %w", h, err)
	}
	return nil
}

// Download fetches a blob into the store: the chunks that it lacks, then the
// manifest. All is verified before it is stored, and durable when it returns. It
// needs a permit of the server. To go on after a failure, call it again.
func (c *Client) Download(ctx context.Context, to blob.Store, h blob.Hash) error {
	return c.DownloadProgress(ctx, to, h, nil)
}

// DownloadProgress is Download with a progress function.
func (c *Client) DownloadProgress(ctx context.Context, to blob.Store, h blob.Hash, p Progress) error {
	if err := c.download(ctx, to, h, p); err != nil {
		return fmt.Errorf("download blob %v: %w", h, err)
	}
	return nil
}

var chunks = sync.Pool{New: func() any { return new([blob.ChunkSize]byte) }}

// errAgain says that the manifest has to be posted again.
var errAgain = errors.New("the server does not know the manifest any more")

func (c *Client) upload(ctx context.Context, from blob.Store, h blob.Hash, p Progress) error {
	m, err := blob.ReadManifest(ctx, from, h)
	if err != nil {
		return err
	}
	body := m.Encode()
	total := total(m)
	lacked := -1
	for rounds := 0; rounds < cmp.Or(c.Attempts, 10); rounds++ {
		var missing [][2]int
		complete := false
		err := c.retry(ctx, func() (bool, error) {
			var err error
			missing, complete, err = c.post(ctx, h, body)
			return false, err
		})
		if err != nil {
			return err
		}
		if complete {
			total.done(p, m.Bytes)
			return nil
		}
		lack, err := chosen(m, missing)
		if err != nil {
			return err
		}
		if lacked < 0 || len(lack) < lacked {
			lacked, rounds = len(lack), 0
		}
		complete, err = c.putAll(ctx, from, h, m, lack, total, p)
		if complete {
			total.done(p, m.Bytes)
			return nil
		}
		if err != nil && !errors.Is(err, errAgain) {
			return err
		}
	}
	return errors.New("the server says again and again that chunks are missing that it has acknowledged: its store loses them")
}

// tally counts the bytes of a blob that need not move any more.
type tally struct {
	m     blob.Manifest
	times map[blob.Hash]int64 // bytes of all chunks with that hash

	mu sync.Mutex
	n  int64
}

func total(m blob.Manifest) *tally {
	t := &tally{m: m, times: make(map[blob.Hash]int64, len(m.Chunks))}
	for i, h := range m.Chunks {
		t.times[h] += m.ChunkLen(i)
	}
	return t
}

// done reports that n bytes are done, if that is more than before.
func (t *tally) done(p Progress, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report(p, n)
}

// without reports that all but these chunks are done.
func (t *tally) without(p Progress, lack []blob.Hash) {
	n := t.m.Bytes
	for _, h := range lack {
		n -= t.times[h]
	}
	t.done(p, n)
}

// add reports that one more chunk is done.
func (t *tally) add(p Progress, h blob.Hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report(p, t.n+t.times[h])
}

// report holds mu while it calls p, so that p sees growing numbers.
func (t *tally) report(p Progress, n int64) {
	if n > t.n {
		t.n = n
		if p != nil {
			p(n, t.m.Bytes)
		}
	}
}

// chosen returns the chunks in the ranges, each once.
func chosen(m blob.Manifest, ranges [][2]int) ([]blob.Hash, error) {
	var all []blob.Hash
	seen := map[blob.Hash]bool{}
	for _, r := range ranges {
		if r[0] < 0 || r[1] > len(m.Chunks) || r[0] >= r[1] {
			return nil, fmt.Errorf("the server asks for chunks %d to %d of %d", r[0], r[1], len(m.Chunks))
		}
		for _, h := range m.Chunks[r[0]:r[1]] {
			if !seen[h] {
				seen[h] = true
				all = append(all, h)
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the server asks for no chunk, but does not call the blob complete")
	}
	return all, nil
}

// putAll sends chunks until all are there or one fails for good.
func (c *Client) putAll(ctx context.Context, from blob.Store, h blob.Hash, m blob.Manifest, lack []blob.Hash, t *tally, p Progress) (complete bool, err error) {
	t.without(p, lack)
	var whole atomic.Bool
	err = c.each(ctx, lack, func(ctx context.Context, chunk blob.Hash) error {
		buf := chunks.Get().(*[blob.ChunkSize]byte)
		defer chunks.Put(buf)
		data, err := blob.GetInto(ctx, from, chunk, buf[:])
		if err != nil {
			return err
		}
		q := c.url("chunk/"+chunk.String(), "blob", h.String())
		at, first := int64(0), true
		err = c.retry(ctx, func() (progress bool, err error) {
			if !first { // some of it may have arrived
				have, err := c.have(ctx, q, int64(len(data)))
				if err != nil {
					return false, err
				}
				progress = have > at
				at = have
				if have == int64(len(data)) {
					return true, nil
				}
			}
			first = false
			status, err := c.put(ctx, q, data, at)
			if status == http.StatusCreated {
				whole.Store(true)
			}
			return progress, err
		})
		if err == nil {
			t.add(p, chunk)
		}
		return err
	})
	return whole.Load(), err
}

func (c *Client) download(ctx context.Context, to blob.Store, h blob.Hash, p Progress) error {
	var body []byte
	err := c.retry(ctx, func() (_ bool, err error) {
		body, err = c.manifest(ctx, h)
		return false, err
	})
	if err != nil {
		return err
	}
	m, err := blob.DecodeManifest(body)
	if err != nil {
		return err
	}
	if k, ok := to.(blob.Keeper); ok {
		defer k.Pin(append([]blob.Hash{h}, m.Chunks...)...)()
	}
	lack, err := blob.Missing(ctx, to, m)
	if err != nil {
		return err
	}
	t := total(m)
	t.without(p, lack)
	length := make(map[blob.Hash]int64, len(lack))
	for i, chunk := range m.Chunks {
		length[chunk] = m.ChunkLen(i)
	}
	err = c.each(ctx, lack, func(ctx context.Context, chunk blob.Hash) error {
		buf := chunks.Get().(*[blob.ChunkSize]byte)
		defer chunks.Put(buf)
		data, n := buf[:length[chunk]], 0
		err := c.retry(ctx, func() (progress bool, err error) {
			before := n
			n, err = c.get(ctx, c.url("chunk/"+chunk.String(), "blob", h.String()), data, n)
			if err != nil {
				return n > before, err
			}
			if got := blob.Sum(data); got != chunk {
				n = 0
				return false, &blob.MismatchError{Want: chunk, Got: got, Len: int64(len(data))}
			}
			return true, nil
		})
		if err != nil {
			return err
		}
		if err := blob.PutVerified(ctx, to, chunk, data); err != nil {
			return err
		}
		t.add(p, chunk)
		return nil
	})
	if err != nil {
		return err
	}
	return blob.PutVerified(ctx, to, h, body)
}

// each runs f for all chunks, some at a time, until one fails.
func (c *Client) each(ctx context.Context, all []blob.Hash, f func(context.Context, blob.Hash) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan blob.Hash)
	var wg sync.WaitGroup
	for range min(cmp.Or(c.Parallel, 4), len(all)) {
		wg.Go(func() {
			for h := range next {
				if err := f(ctx, h); err != nil {
					cancel(err) // the first one counts
				}
			}
		})
	}
	for _, h := range all {
		if ctx.Err() != nil {
			break
		}
		next <- h
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// permanent marks an error that is not tried again.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// retry calls f until it succeeds, fails for good, or fails too often without progress.
func (c *Client) retry(ctx context.Context, f func() (progress bool, err error)) error {
	limit := cmp.Or(c.Attempts, 10)
	for failures := 0; ; {
		progress, err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var p permanent
		if errors.As(err, &p) {
			return p.error
		}
		failures++
		if progress {
			failures = 1
		}
		if failures >= limit {
			return fmt.Errorf("given up after %d attempts: %w", failures, err)
		}
		top := min(cmp.Or(c.MinPause, 200*time.Millisecond)<<min(failures-1, 20), cmp.Or(c.MaxPause, 15*time.Second))
		select {
		case <-time.After(top/2 + rand.N(top/2+1)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if errors.Is(err, errStalled) {
			// Perhaps the connection is dead and nobody has said so, as when this machine has another address now. HTTP/2 would
			// use it again and again.
			c.HTTP.CloseIdleConnections()
		}
	}
}

func (c *Client) url(path string, query ...string) string {
	v := url.Values{}
	for i := 0; i < len(query); i += 2 {
		v.Set(query[i], query[i+1])
	}
	u := c.Base + "/blob/" + path
	if len(v) > 0 {
		u += "?" + v.Encode()
	}
	return u
}

func (c *Client) post(ctx context.Context, h blob.Hash, body []byte) (missing [][2]int, complete bool, err error) {
	err = c.do(ctx, http.MethodPost, c.url(h.String()), body, nil, func(r *http.Response) error {
		switch r.StatusCode {
		case http.StatusCreated:
			complete = true
			return nil
		case http.StatusOK:
			var a answer
			err := json.NewDecoder(io.LimitReader(r.Body, 64<<20)).Decode(&a)
			missing = a.Missing
			return err
		}
		return failure(r)
	})
	return missing, complete, err
}

func (c *Client) have(ctx context.Context, u string, n int64) (have int64, err error) {
	err = c.do(ctx, http.MethodHead, u, nil, nil, func(r *http.Response) error {
		switch r.StatusCode {
		case http.StatusOK:
		case http.StatusConflict:
			return permanent{errAgain}
		default:
			return failure(r)
		}
		have, err = strconv.ParseInt(r.Header.Get(haveHeader), 10, 64)
		if err != nil || have < 0 || have > n {
			return fmt.Errorf("the server says that %.20q of %d bytes are there", r.Header.Get(haveHeader), n)
		}
		return nil
	})
	return have, err
}

func (c *Client) put(ctx context.Context, u string, data []byte, from int64) (status int, err error) {
	if from > 0 {
		u += "&from=" + strconv.FormatInt(from, 10)
	}
	err = c.do(ctx, http.MethodPut, u, data[from:], nil, func(r *http.Response) error {
		status = r.StatusCode
		switch {
		case status == http.StatusCreated || status == http.StatusNoContent:
			return nil
		case status == http.StatusConflict && r.Header.Get(haveHeader) != "":
			return failure(r) // ask how much is there, and go on
		case status == http.StatusConflict:
			return permanent{errAgain}
		}
		return failure(r)
	})
	return status, err
}

func (c *Client) manifest(ctx context.Context, h blob.Hash) (body []byte, err error) {
	err = c.do(ctx, http.MethodGet, c.url(h.String()), nil, nil, func(r *http.Response) error {
		if r.StatusCode != http.StatusOK {
			return failure(r)
		}
		body, err = io.ReadAll(io.LimitReader(r.Body, blob.MaxManifest+1))
		c.received.Add(int64(len(body)))
		if err != nil {
			return err
		}
		if got := blob.Sum(body); got != h {
			return &blob.MismatchError{Want: h, Got: got, Len: int64(len(body))}
		}
		return nil
	})
	return body, err
}

// get fills data, of which the first n bytes are there, and returns how many are there then.
func (c *Client) get(ctx context.Context, u string, data []byte, n int) (int, error) {
	head := http.Header{}
	if n > 0 {
		head.Set("Range", fmt.Sprintf("bytes=%d-", n))
	}
	err := c.do(ctx, http.MethodGet, u, nil, head, func(r *http.Response) error {
		switch {
		case r.StatusCode == http.StatusOK:
			n = 0
		case r.StatusCode == http.StatusPartialContent && strings.HasPrefix(r.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", n)):
		case r.StatusCode == http.StatusPartialContent:
			return fmt.Errorf("asked for bytes from %d, the server sends %.80q", n, r.Header.Get("Content-Range"))
		default:
			return failure(r)
		}
		k, err := io.ReadFull(r.Body, data[n:])
		c.received.Add(int64(k))
		n += k
		return err
	})
	return n, err
}

// failure makes an error of an answer.
func failure(r *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(r.Body, 300))
	err := fmt.Errorf("%s: %.300q", r.Status, bytes.TrimSpace(text))
	switch r.StatusCode {
	case http.StatusNotFound:
		return permanent{ErrDenied}
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity, // changed or cut off on the way
		http.StatusRequestTimeout, http.StatusTooManyRequests:
		return err
	case http.StatusInsufficientStorage:
		return fmt.Errorf("%w (at the server): %w", blob.ErrFull, err)
	}
	if r.StatusCode >= 500 {
		return err
	}
	return permanent{fmt.Errorf("%w: %w", ErrRefused, err)}
}

// do sends a request and lets take read the answer; both end when nothing moves.
func (c *Client) do(ctx context.Context, method, u string, body []byte, head http.Header, take func(*http.Response) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := cmp.Or(c.Stall, 30*time.Second)
	timer := time.AfterFunc(stall, func() { cancel(fmt.Errorf("%w for %v", errStalled, stall)) })
	defer timer.Stop()
	moved := func() { timer.Reset(stall) }

	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return permanent{err}
	}
	for k, v := range head {
		req.Header[k] = v
	}
	if body != nil {
		b := &outgoing{rest: body, moved: moved, sent: &c.sent}
		defer b.detach() // the transport may go on reading, but body is the caller's again
		req.Body, req.ContentLength = b, int64(len(body))
		req.GetBody = nil
		if len(body) == 0 {
			req.Body = http.NoBody
		}
	}
	r, err := c.HTTP.Do(req)
	if err != nil {
		return cause(ctx, err)
	}
	defer r.Body.Close()
	moved()
	r.Body = &incoming{r.Body, moved}
	if err := take(r); err != nil {
		return cause(ctx, err)
	}
	_, _ = io.CopyN(io.Discard, r.Body, 4<<10) // so that the connection can be used again
	return nil
}

// cause says why ctx ended, if that is why err happened.
func cause(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// outgoing is a body that can be taken away from the transport.
type outgoing struct {
	moved func()
	sent  *counter
	mu    sync.Mutex
	rest  []byte
	gone  bool
}

func (o *outgoing) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone {
		return 0, errors.New("the request is over")
	}
	if len(o.rest) == 0 {
		return 0, io.EOF
	}
	o.moved()
	n := copy(p, o.rest)
	o.rest = o.rest[n:]
	o.sent.Add(int64(n))
	return n, nil
}

func (o *outgoing) Close() error { return nil }

func (o *outgoing) detach() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone, o.rest = true, nil
}

// incoming is a body whose bytes reset the watch.
type incoming struct {
	io.ReadCloser
	moved func()
}

func (i *incoming) Read(p []byte) (int, error) {
	n, err := i.ReadCloser.Read(p)
	if n > 0 {
		i.moved()
	}
	return n, err
}
