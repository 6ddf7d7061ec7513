package identity

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got) {
		t.Errorf("%s differs: other versions of the program would not read it (run with -update if that is meant)\n%s", path, got)
	}
}

var epoch = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func fixedToken() Token {
	t := Token{
		URL: "https://fl.example.org:7443", Federation: fixedKey(1).Public(),
		Name: "north", Expires: epoch.Add(72 * time.Hour),
	}
	for i := range t.Secret {
		t.Secret[i], t.CA[i] = byte(i), byte(255-i)
	}
	return t
}

func TestTokenGolden(t *testing.T) {
	golden(t, "token.txt", []byte(fixedToken().String()+"\n"))
}

func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Token{
			URL:     "https://" + rapid.StringMatching(`[a-z0-9]{1,20}(\.[a-z]{1,9}){0,4}(:[1-9][0-9]{1,3})?/?`).Draw(t, "url"),
			Name:    rapid.StringMatching(`[a-z0-9][a-z0-9_-]{3,60}x`).Draw(t, "name"),
			Expires: time.Unix(rapid.Int64Range(0, maxSeconds).Draw(t, "expires"), 0).UTC(),
		}
		copy(want.Secret[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret"))
		copy(want.CA[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "ca"))
		copy(want.Federation[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		text := want.String()
		got, err := ParseToken(" \n" + text[:30] + "\r\n  " + text[30:] + "\n")
		if err != nil || got != want {
			t.Fatalf("%+v read back as %+v (%v)", want, got, err)
		}
		// Any prefix is cut short, any other character is mistyped.
		if _, err := ParseToken(text[:rapid.IntRange(1, len(text)-1).Draw(t, "cut")]); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut: %v", err)
		}
		i := rapid.IntRange(len(tokenPrefix), len(text)-1).Draw(t, "at")
		c := rapid.SampledFrom([]byte("ABCdef019-_!.é")).Draw(t, "other")
		if text[i] != c {
			if got, err := ParseToken(text[:i] + string(c) + text[i+1:]); err == nil {
				t.Fatalf("with %q at %d: read as %+v", c, i, got)
			} else if !errors.Is(err, ErrMistyped) && !(errors.Is(err, ErrTruncated) && i < len(tokenPrefix)+4) {
				t.Fatalf("with %q at %d: %v", c, i, err)
			}
		}
		if _, err := ParseToken(text + "A"); !errors.Is(err, ErrMistyped) {
			t.Fatalf("with one more character: %v", err)
		}
	})
}

func TestTokenErrors(t *testing.T) {
	for _, text := range []string{"", "hello", "cohort2_AAAA", "https://fl.example.org"} {
		if _, err := ParseToken(text); !errors.Is(err, ErrNotToken) {
			t.Errorf("%q: %v", text, err)
		}
	}
	tok := fixedToken()
	if err := tok.Check(tok.Expires.Add(-time.Second)); err != nil {
		t.Errorf("before its end: %v", err)
	}
	if err := tok.Check(tok.Expires); !errors.Is(err, ErrTokenExpired) {
		t.Errorf("at its end: %v", err)
	}
	// The checksum is no signature: a token made by somebody else is checked too.
	for _, bad := range []Token{
		{URL: "http://fl.example.org", Name: "a"}, {URL: "https://u:p@h", Name: "a"}, {URL: "https://h/path", Name: "a"},
		{URL: "https://h?q", Name: "a"}, {URL: "https://", Name: "a"}, {URL: "file:///etc/passwd", Name: "a"}, {URL: "https://h", Name: "../a"}, {URL: "https://h", Name: "all"},
	} {
		if got, err := ParseToken(bad.String()); err == nil {
			t.Errorf("read %+v", got)
		}
	}
	if err := (Token{URL: "https://h", Name: "a", Expires: epoch.Add(time.Hour)}).Check(epoch); err == nil {
		t.Error("a token without a federation was accepted")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(fixedToken().String())
	f.Add(Token{URL: "https://[::1]:1", Name: "a", Expires: epoch}.String())
	f.Add(tokenPrefix + strings.Repeat("A", 200))
	f.Add("cohort1_")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := ParseToken(tok.String())
		if err != nil || again != tok {
			t.Errorf("%q: read as %+v, and written and read again as %+v (%v)", text, tok, again, err)
		}
	})
}

func TestFingerprintText(t *testing.T) {
	f := fixedToken().CA
	var g Fingerprint
	colons := strings.ToUpper(f.String())
	for i := 62; i > 0; i -= 2 {
		colons = colons[:i] + ":" + colons[i:]
	}
	for _, text := range []string{f.String(), colons} {
		if err := g.UnmarshalText([]byte(text)); err != nil || g != f {
			t.Errorf("%s: %v, %v", text, g, err)
		}
	}
	if err := g.UnmarshalText([]byte("ab")); err == nil {
		t.Error("two digits were accepted")
	}
}
