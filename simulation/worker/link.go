package worker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// kind is the first byte of a frame.
type kind byte

// The kinds of frames, and who sends them.
const (
	kindHello   kind = 1 + iota // worker: its proof and who it is
	kindWelcome                 // host: the run
	kindRefusal                 // either: why the two do not go together, for good
	kindTask                    // host: a client's work
	kindWant                    // worker: the contents that it lacks for a task
	kindContent                 // host: one of them
	kindResult                  // worker: what a client answered
	kindAsk                     // worker: something of a client's vault
	kindTell                    // host: the answer
	kindDrop                    // host: the number of a task whose answer is not wanted any more
	kindPing                    // either: I am here
	kindBye                     // either: the end, and why
)

const (
	// maxHello bounds a frame of somebody who has not proved anything yet.
	maxHello = 4 << 10
	// maxFrame bounds any frame. Memory is taken as bytes arrive, not as they are announced.
	maxFrame = 16 << 30
	// piece is what is written under one deadline.
	piece = 256 << 10
)

// link carries frames: a kind, 8 bytes of length (big-endian), and as many bytes. One goroutine reads; any may write.
type link struct {
	c       net.Conn
	silence time.Duration // a peer that neither sends nor takes anything for so long is lost

	mu      sync.Mutex
	in, out atomic.Int64 // bytes
}

// Read reads from the connection; every byte that comes is a sign of life.
func (l *link) Read(b []byte) (int, error) {
	if err := l.c.SetReadDeadline(time.Now().Add(l.silence)); err != nil {
		return 0, err
	}
	n, err := l.c.Read(b)
	l.in.Add(int64(n))
	return n, err
}

// receive returns the next frame, of at most limit bytes.
func (l *link) receive(limit uint64) (kind, []byte, error) { return readFrame(l, limit) }

func readFrame(r io.Reader, limit uint64) (kind, []byte, error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	k, n := kind(head[0]), binary.BigEndian.Uint64(head[1:])
	switch {
	case k < kindHello || k > kindBye:
		return 0, nil, fmt.Errorf("a frame of unknown kind %d", k)
	case n > limit:
		return 0, nil, fmt.Errorf("a frame of %d bytes, at most %d are taken", n, limit)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		return 0, nil, fmt.Errorf("in a frame of %d bytes: %w", n, err)
	}
	return k, b.Bytes(), nil
}

// send writes one frame, made of the parts.
func (l *link) send(k kind, parts ...[]byte) error {
	var n int
	for _, p := range parts {
		n += len(p)
	}
	if n > maxFrame {
		return fmt.Errorf("a frame would have %d bytes, the limit is %d", n, int64(maxFrame))
	}
	head := binary.BigEndian.AppendUint64([]byte{byte(k)}, uint64(n))
	l.mu.Lock()
	defer l.mu.Unlock()
	if n+len(head) <= piece { // one write, one packet
		for _, p := range parts {
			head = append(head, p...)
		}
		parts = nil
	}
	if err := l.write(head); err != nil {
		return err
	}
	for _, p := range parts {
		if err := l.write(p); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) write(b []byte) error {
	for len(b) > 0 {
		if err := l.c.SetWriteDeadline(time.Now().Add(l.silence)); err != nil {
			return err
		}
		n, err := l.c.Write(b[:min(len(b), piece)])
		l.out.Add(int64(n))
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// keep sends signs of life until done is closed or the connection ends.
func (l *link) keep(done <-chan struct{}) {
	t := time.NewTicker(l.silence / 4)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
			if l.send(kindPing) != nil {
				return
			}
		}
	}
}
