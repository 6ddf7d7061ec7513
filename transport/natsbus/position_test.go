package natsbus

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestPosition cuts what a server says anywhere: it is whole at the ends of lines and messages and nowhere else.
func TestPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		ends := map[int]bool{0: true}
		for range rapid.IntRange(1, 6).Draw(t, "lines") {
			payload := rapid.StringOfN(rapid.SampledFrom([]rune("aM \r\n9")), 0, 40, -1).Draw(t, "payload")
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				text.WriteString("PING\r\n")
			case 1:
				text.WriteString("INFO {\"a\":\"MSG 7\"}\r\n")
			case 2:
				fmt.Fprintf(&text, "MSG down.x 1 %d\r\n%s\r\n", len(payload), payload)
			case 3:
				fmt.Fprintf(&text, "MSG all 2 _INBOX.x.1 %d\r\n%s\r\n", len(payload), payload)
			default:
				fmt.Fprintf(&text, "HMSG all 2 12 %d\r\n%s%s\r\n", 12+len(payload), "NATS/1.0\r\n\r\n", payload)
			}
			ends[text.Len()] = true
		}
		all := text.String()
		var p position
		for at := 0; at < len(all); {
			n := rapid.IntRange(0, len(all)-at).Draw(t, "piece")
			at += n
			if got := p.whole([]byte(all[at-n : at])); got != ends[at] {
				t.Fatalf("after %q: whole is %v", all[:at], got)
			}
		}
	})
}
