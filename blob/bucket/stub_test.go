//go:build !bucket

package bucket_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/blob/bucket"
)

func TestStubSaysHowToBuild(t *testing.T) {
	_, err := bucket.Open(t.Context(), "s3://models")
	if err == nil || !strings.Contains(err.Error(), "go build -tags bucket") || !strings.Contains(err.Error(), "s3://models") {
		t.Errorf("error %v", err)
	}
}

// The cloud's libraries are in no program that was built without the tag.
func TestDefaultBuildHasNoCloud(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/...", "./blob/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	n := 0
	for pkg := range strings.Lines(string(out)) {
		n++
		for _, cloud := range []string{"gocloud.dev", "github.com/aws/", "google.golang.org/grpc", "go.opentelemetry.io", "gofakes3"} {
			if strings.Contains(pkg, cloud) {
				t.Errorf("the default build contains %s", pkg)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d packages were looked at", n)
	}
}
