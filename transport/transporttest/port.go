package transporttest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

var given sync.Map // ports

// FreePort returns a port of this machine that nothing listens on, another one each time, below those that the system gives to
// outgoing connections: who is told it beforehand, or was killed and comes back, is to find it free.
func FreePort() (int, error) {
	for range 100 {
		port := 20000 + rand.N(10000)
		if _, again := given.LoadOrStore(port, true); again {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("there is no free port")
}
