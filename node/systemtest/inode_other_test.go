//go:build !unix

package systemtest

import "io/fs"

func identityOf(info fs.FileInfo) string { return info.ModTime().String() }
