//go:build bucket

package bucket_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	cloud "gocloud.dev/blob"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/blobtest"
	"github.com/cohort-learning/cohort/blob/bucket"
	"github.com/cohort-learning/cohort/blob/web"
)

// s3 starts an S3 server on this machine and returns the URL of an empty bucket of it.
func s3(t testing.TB) string {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("models"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(srv.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	q := url.Values{"endpoint": {srv.URL}, "region": {"us-east-1"}, "use_path_style": {"true"}, "prefix": {"run-1/"}}
	return "s3://models?" + q.Encode()
}

func file(t testing.TB) string {
	return "file://" + t.TempDir() + "?metadata=skip"
}

func open(t testing.TB, u string) bucket.Store {
	t.Helper()
	s, err := bucket.Open(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func fixture(t *testing.T, u string) blobtest.Fixture {
	s := open(t, u)
	return blobtest.Fixture{
		Store: s,
		Damage: func(t *testing.T, h blob.Hash) {
			b, err := cloud.OpenBucket(t.Context(), u)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			data, err := b.ReadAll(t.Context(), h.String())
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := b.WriteAll(t.Context(), h.String(), data, nil); err != nil {
				t.Fatal(err)
			}
		},
		Reopen: func(t *testing.T) blob.Keeper {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, u)
		},
	}
}

func TestS3(t *testing.T) {
	blobtest.TestStore(t, func(t *testing.T) blobtest.Fixture { return fixture(t, s3(t)) })
}

func TestFile(t *testing.T) {
	blobtest.TestStore(t, func(t *testing.T) blobtest.Fixture { return fixture(t, file(t)) })
}

func TestMem(t *testing.T) {
	blobtest.TestStore(t, func(t *testing.T) blobtest.Fixture { return blobtest.Fixture{Store: open(t, "mem://")} })
}

// A server whose store is a bucket.
func TestUploadToBucket(t *testing.T) {
	blobtest.TestCarrier(t, func(t *testing.T) blobtest.Carrier {
		to, from := open(t, s3(t)), blob.NewMemory()
		permits := web.NewPermits()
		srv := httptest.NewTLSServer(web.NewHandler(to, web.HandlerOptions{
			Permits: permits,
			Who:     func(*http.Request) (string, bool) { return "anna", true },
		}))
		t.Cleanup(srv.Close)
		c := web.NewClient(srv.Client(), srv.URL)
		return blobtest.Carrier{From: from, To: to, Move: func(ctx context.Context, h blob.Hash) error {
			if m, err := blob.ReadManifest(t.Context(), from, h); err == nil {
				permits.Issue("anna", h, m.Bytes, time.Time{})
			}
			return c.Upload(ctx, from, h)
		}}
	})
}

func TestOpenFails(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	u := strings.Replace(s3(t), "models", "nobodys", 1)
	if _, err := bucket.Open(t.Context(), u); err == nil || !strings.Contains(err.Error(), "nobodys") {
		t.Errorf("bucket that is not there: %v", err)
	}
	if _, err := bucket.Open(t.Context(), "ftp://models"); err == nil {
		t.Error("unknown scheme")
	}
	s := open(t, "mem://")
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Has(t.Context(), blob.Hash{}); !errors.Is(err, blob.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}
