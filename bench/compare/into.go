package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// marker names what the options measure; a document has a place for the results between
//
//	<!-- compare -shapes random -seed 1 -->
//
// and <!-- end -->.
func (o options) marker() string {
	m := "compare"
	if o.shapes == "random" {
		m += fmt.Sprintf(" -shapes random -seed %d", o.seed)
	}
	if o.memory {
		m += " -memory"
	}
	if o.quick {
		m += " -quick"
	}
	if only := o.only.String(); only != "" {
		m += fmt.Sprintf(" -only '%s'", only)
	}
	if o.threads != 2 {
		m += fmt.Sprintf(" -threads %d", o.threads)
	}
	return m
}

// fill returns doc with text, as a block of code, at the place for a marker.
func fill(doc, marker, text string, day time.Time) (string, error) {
	place := regexp.MustCompile(`(?s)(<!-- ` + regexp.QuoteMeta(marker) + ` -->\n).*?(<!-- end -->)`)
	if n := len(place.FindAllString(doc, -1)); n != 1 {
		return "", fmt.Errorf("%d places <!-- %s --> … <!-- end -->, want one", n, marker)
	}
	at := place.FindStringSubmatchIndex(doc)
	block := fmt.Sprintf("`go run ./bench/%s`, %s:\n\n```text\n%s\n```\n", marker, day.Format(time.DateOnly), strings.TrimRight(text, "\n"))
	return doc[:at[3]] + block + doc[at[4]:], nil
}

// fillFile puts text into the document at path.
func fillFile(path, marker, text string) error {
	doc, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	filled, err := fill(string(doc), marker, text, time.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(filled), 0o644)
}
