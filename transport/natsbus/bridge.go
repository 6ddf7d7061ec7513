package natsbus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Subprotocol is what a WebSocket carries: the client protocol of NATS in binary messages, whose bounds mean nothing.
const Subprotocol = "cohort.bus.1"

// Why a WebSocket is closed by the server.
const (
	statusGoingAway = websocket.StatusGoingAway
	statusReplaced  = websocket.StatusCode(4001) // another connection of the member took its place: do not come back
	statusCut       = websocket.StatusCode(4002) // the coordinator cut it: come back, if you are admitted
)

// bridge joins a WebSocket to a connection of the NATS server.
type bridge struct {
	s      *Server
	ws     *websocket.Conn
	conn   net.Conn // below ws
	pipe   net.Conn // to the NATS server
	id     uint64   // the NATS server's number of the connection
	who    string   // whose TLS certificate it is; empty: unknown
	remote string

	// Guarded by the server.
	name  string // the member, once admitted
	ended bool

	once sync.Once
}

// Handler accepts the WebSockets of members.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.accept) }

func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	b := &bridge{s: s, remote: r.RemoteAddr}
	if s.o.Who != nil {
		b.who, _ = s.o.Who(r)
	}
	s.mu.Lock()
	if s.closed || s.open >= s.o.MaxConnections || s.unknown >= s.o.MaxUnknown {
		s.mu.Unlock()
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	s.open++
	s.unknown++
	s.mu.Unlock()
	ws, err := websocket.Accept(taker{w, b}, r, &websocket.AcceptOptions{Subprotocols: []string{Subprotocol}})
	if err != nil {
		s.leave(b)
		return
	}
	b.ws = ws
	if ws.Subprotocol() != Subprotocol {
		b.bye(websocket.StatusPolicyViolation, "the subprotocol is "+Subprotocol)
		s.leave(b)
		return
	}
	ws.SetReadLimit(1 << 20)
	info, err := b.join()
	if err != nil {
		b.bye(websocket.StatusTryAgainLater, "the bus is not ready")
		s.leave(b)
		return
	}
	// The goroutine of the request, with its large stack, ends here.
	go b.down(info)
	go b.up()
}

// join connects to the NATS server and returns its first words, which tell the number of the connection.
func (b *bridge) join() (info []byte, err error) {
	if b.pipe, err = b.s.nats.InProcessConn(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.pipe.Close()
		}
	}()
	b.pipe.SetReadDeadline(time.Now().Add(b.s.o.AuthTimeout))
	for !bytes.HasSuffix(info, []byte("\r\n")) {
		if len(info) > 8<<10 {
			return nil, errors.New("the server's information is too long")
		}
		buf := make([]byte, 1024)
		n, err := b.pipe.Read(buf)
		if err != nil {
			return nil, err
		}
		info = append(info, buf[:n]...)
	}
	b.pipe.SetReadDeadline(time.Time{})
	var fields struct {
		ID uint64 `json:"client_id"`
	}
	text, ok := bytes.CutPrefix(info, []byte("INFO "))
	if err := json.Unmarshal(text, &fields); !ok || err != nil || fields.ID == 0 {
		return nil, fmt.Errorf("the server's information is not understood: %.100q", info)
	}
	b.id = fields.ID
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.s.closed {
		return nil, errors.New("the bus ends")
	}
	b.s.bridges[b.id] = b
	b.s.wg.Add(2)
	return info, nil
}

// end closes the connection from this side, at once for the NATS server, and says why to the other end.
func (b *bridge) end(code websocket.StatusCode, why string) {
	b.once.Do(func() {
		b.pipe.Close()
		b.s.mu.Lock()
		b.ended = true
		b.s.mu.Unlock()
		b.s.leave(b)
		if code == 0 {
			b.ws.CloseNow()
		} else {
			go b.bye(code, why)
		}
	})
}

// bye closes the WebSocket and says why. The other end may not read any more: what it does not hear in time it never will.
func (b *bridge) bye(code websocket.StatusCode, why string) {
	timer := time.AfterFunc(time.Second, func() { b.conn.Close() })
	defer timer.Stop()
	b.ws.Close(code, why)
}

// taker hands the connection of a request to the WebSocket, with less memory than the buffers of an HTTP connection: there are
// thousands of them, and most are idle.
type taker struct {
	http.ResponseWriter
	b *bridge
}

// Sizes of the two buffers of a WebSocket. What is larger passes them by: that of reading takes in the heads of frames, that of
// writing joins a head with what follows it.
const (
	readSize  = 256
	writeSize = 1 << 10
)

func (t taker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t.b.conn = conn
	if rw.Reader.Buffered() > 0 { // it speaks before it is answered
		return conn, rw, nil
	}
	return conn, bufio.NewReadWriter(bufio.NewReaderSize(conn, readSize), bufio.NewWriterSize(conn, writeSize)), nil
}

// buffers are for what is larger than an idle connection's own.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// up carries what the member says. It holds no buffer while the member is silent.
func (b *bridge) up() {
	defer b.s.wg.Done()
	var pace bucket
	for {
		kind, r, err := b.ws.Reader(context.Background())
		if err != nil {
			b.end(0, "")
			return
		}
		if kind != websocket.MessageBinary {
			b.end(websocket.StatusUnsupportedData, "messages are binary")
			return
		}
		buf := buffers.Get().(*[64 << 10]byte)
		n, err := io.CopyBuffer(writerOnly{b.pipe}, r, buf[:])
		buffers.Put(buf)
		if err != nil {
			b.end(0, "")
			return
		}
		if wait := pace.take(time.Now(), float64(n), byteRate, byteBurst); wait > 0 {
			time.Sleep(wait) // meanwhile nothing is read, which the other end feels
		}
	}
}

// writerOnly hides that a pipe could read by itself.
type writerOnly struct{ io.Writer }

// down carries what the server says, beginning with info. The server writes a message in pieces; each becomes a frame, a TLS record
// and a system call only when the message is whole. An idle member costs a small buffer.
func (b *bridge) down(info []byte) {
	defer b.s.wg.Done()
	write := func(p []byte) error {
		b.conn.SetWriteDeadline(time.Now().Add(b.s.o.WriteTimeout)) // a member that takes nothing for so long is cut
		defer b.conn.SetWriteDeadline(time.Time{})
		return b.ws.Write(context.Background(), websocket.MessageBinary, p)
	}
	err := write(info)
	var at position
	for small := make([]byte, 512); err == nil; {
		n, end := b.pipe.Read(small)
		if at.whole(small[:n]) || end != nil {
			err = write(small[:n])
		} else { // the rest is on its way
			large := buffers.Get().(*[64 << 10]byte)
			copy(large[:], small[:n])
			for whole := false; !whole && n < len(large) && end == nil; {
				var m int
				m, end = b.pipe.Read(large[n:])
				whole = at.whole(large[n : n+m])
				n += m
			}
			err = write(large[:n])
			buffers.Put(large)
		}
		if err == nil {
			err = end
		}
	}
	b.end(websocket.StatusNormalClosure, "")
}

// position is how far what the server says has come in the protocol of NATS: lines, of which MSG and HMSG are followed by so many
// bytes as the last of their words says, and a line end.
type position struct {
	line []byte // that has begun
	left int    // of what follows a line
}

// whole takes in the next bytes and reports whether they end what they or others before them began.
func (p *position) whole(b []byte) bool {
	for len(b) > 0 {
		if p.left > 0 {
			n := min(p.left, len(b))
			p.left, b = p.left-n, b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			p.line = append(p.line, b...)
			return false
		}
		line := b[:end]
		if p.line != nil {
			line, p.line = append(p.line, line...), nil
		}
		b = b[end+1:]
		if bytes.HasPrefix(line, []byte("MSG ")) || bytes.HasPrefix(line, []byte("HMSG ")) {
			line = bytes.TrimRight(line, "\r")
			if n, err := strconv.Atoi(string(line[bytes.LastIndexByte(line, ' ')+1:])); err == nil {
				p.left = n + len("\r\n")
			}
		}
	}
	return p.left == 0 && p.line == nil
}
