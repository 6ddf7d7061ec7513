package systemtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/transport/natsbus"
)

func init() { roles["stranger"] = stranger }

// stranger is somebody who opens as many connections as the system gives and is slow on each: ADDRESS. It never ends.
func stranger(args []string) error {
	var opened, failed atomic.Int64
	var all sync.WaitGroup
	for i := range 250 {
		all.Go(func() {
			for n := 0; ; n++ {
				if err := pester(args[0], i, n); err != nil {
					failed.Add(1)
				}
				opened.Add(1)
			}
		})
	}
	for { // until it is killed
		time.Sleep(500 * time.Millisecond)
		fmt.Printf("opened %d connections, %d of them were ended or refused\n", opened.Load(), failed.Load())
	}
}

// pester opens one connection, from one of many addresses, and keeps it as long as it can.
func pester(address string, i, n int) error {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%200))}}
	if i%4 == 0 {
		d.LocalAddr = nil // the members' own address, too
	}
	c, err := d.Dial("tcp", address)
	if err != nil {
		time.Sleep(10 * time.Millisecond)
		return err
	}
	defer c.Close()
	wait := func(c net.Conn) error { // for the other end to give up
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, err := c.Read(make([]byte, 1))
		return err
	}
	drip := func(c net.Conn, text string) error {
		for _, b := range []byte(text) {
			if _, err := c.Write([]byte{b}); err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond)
		}
		return wait(c)
	}
	kind := (i + n) % 8
	switch kind {
	case 0: // says nothing
		return wait(c)
	case 1: // a handshake that never ends
		return drip(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("x", 200))
	case 2: // comes and goes
		return nil
	case 3: // rubbish
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return wait(c)
	}
	s := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	if err := s.Handshake(); err != nil {
		return err
	}
	_ = s.SetDeadline(time.Time{})
	switch kind {
	case 4: // headers that never end
		return drip(s, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("y", 200))
	case 5: // a body that never ends
		fmt.Fprint(s, "POST /join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n")
		return drip(s, `{"name":"`+strings.Repeat("y", 200))
	case 6: // a WebSocket for which it has no key
		fmt.Fprintf(s, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
			natsbus.Path, natsbus.Subprotocol)
		return wait(s)
	}
	return wait(s) // a handshake, and nothing more
}

// pest opens WebSockets with a member's key and says nothing on them.
func (l *liar) pest(ctx context.Context) error {
	client, err := httpClient(l.key, l.card)
	if err != nil {
		return err
	}
	for range 40 { // half-open, until the server ends them
		go func() {
			for ctx.Err() == nil {
				if b, err := dialBus(ctx, client, l.card.URL); err == nil {
					_, _ = b.line()
					_, _ = b.line()
					b.Close()
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
	}
	return nil
}

// TestStorm runs a federation while strangers open thousands of connections and are slow on them, and while a member floods the
// bus with requests, also ones whose answer it does not wait for. The run comes to what it comes to undisturbed.
func TestStorm(t *testing.T) {
	brief(t)
	f := newFederation(t, strings.Replace(small, "clients: 5, per_client: 4", "clients: 4, per_client: 5", 1), 4)
	want := f.simulate()
	f.members = append(f.members, &party{name: "flooder", dir: f.dir + "/flooder", role: "flooder"})
	f.open()
	out := newTranscript(t, f.dir+"/strangers.log")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.joinAll()
	f.coordinator.await(t, `agreed to the terms`, 4)
	f.say("all have agreed; now the strangers come")
	strangers := start(t, "strangers", out, []string{roleName + "=stranger"}, self, f.listen)
	strangers.await(t, `opened \d{3,} connections`, 1)
	came := f.round()
	flooder := f.members[4]
	f.members = f.members[:4]
	f.finish()
	strangers.kill()
	flooder.kill()
	f.say("the strangers came in round %d; %s", came, strings.TrimSpace(out.tail(1)))
	if got := digestOf(t, f.run()); got != want {
		t.Errorf("in the storm the run comes to %s, undisturbed to %s", got, want)
	}
	f.say("%s", f.verify())
	f.say("the flooder %s", strings.TrimSpace(flooder.out.tail(1)))
}
