//go:build !bucket

package bucket

import (
	"context"
	"fmt"
)

// Open opens the store at a URL. In this build it only says how to get one that can.
func Open(_ context.Context, url string) (Store, error) {
	return nil, fmt.Errorf("open bucket %q: this program was built without support for buckets: build it with go build -tags bucket ./cmd/cohort", url)
}
