// Package blob keeps what is too big for a message: models, updates and tables,
// cut into chunks that are named by their content.
//
// Three nouns: a chunk is up to [ChunkSize] bytes, named by its SHA-256; a
// [Manifest] lists the chunks of one blob, and its own SHA-256 names the blob;
// a [Store] keeps both, without knowing which is which, and calls them objects.
//
//	h, m, err := blob.Write(ctx, store, file)  // durable when it returns
//	r, err := blob.Open(ctx, store, h)         // io.Reader, io.ReaderAt
//	lack, err := blob.Missing(ctx, other, m)   // what a transfer has to carry
//	freed, err := blob.Collect(ctx, store, live)
//
// Because names are content, writing is idempotent, equal content is kept once,
// a transfer that broke off goes on where it was, and whoever reads can tell a
// wrong byte from a right one. A name is no permission, though: package web
// hands nothing out for knowing a hash.
//
// [Memory] and [Dir] are stores; package bucket is one over S3-compatible
// services. Package blobtest is the contract that all of them are tested by.
//
// # Format of a manifest, version 1
//
//	offset  length  content
//	0       8       the text "cohortB1"
//	8       8       length B of the blob in bytes, unsigned, big-endian
//	16      32·n    SHA-256 of each chunk in order, n = ⌈B / 2²⁰⌉
//
// Every chunk but the last has exactly 2²⁰ bytes, and the last has the rest; an
// empty blob has none. So each blob has exactly one manifest and one name. No
// manifest is longer than [MaxManifest] bytes, hence no blob longer than
// [MaxBytes].
//
// # Memory
//
// Blobs are streamed: [Write], [Copy] and a [Reader] hold a few chunks at a
// time, however long the blob is.
package blob
