// Package bucket is a blob store in a bucket of an S3-compatible service, for
// servers that have outgrown their disk. It is in the program only if it is
// built with the tag bucket, which keeps the cloud's libraries out of all others:
//
//	go build -tags bucket ./cmd/cohort
//
// Buckets are named by URLs of gocloud.dev/blob:
//
//	s3://NAME?region=eu-central-1
//	s3://NAME?endpoint=https://minio.example.org&use_path_style=true&region=us-east-1
//	file:///srv/blobs?create_dir=true&metadata=skip
//	mem://
//
// &prefix=FOLDER/ keeps several stores in one bucket. Credentials of s3 come
// from the places where its tools look: AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY, ~/.aws, the machine's role.
//
// One process at a time may use a store: it remembers what is there. Objects
// are named by their hash in hexadecimal digits; damaged ones are moved to
// corrupt/HASH.
package bucket

import (
	"io"

	"github.com/cohort-learning/cohort/blob"
)

// A Store is a blob store in a bucket.
type Store interface {
	blob.Keeper
	io.Closer
}
