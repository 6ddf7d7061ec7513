// Package journal keeps the log of a run: the truth that resume and verify
// read. It has one writer, every record is on the disk before [Journal.Append]
// returns, and each record carries the hash of the one before it.
//
// Three nouns: a [Record] is one thing that happened, a [Journal] is the
// writer that holds the folder's lock, and [Read] is the reader, which needs
// no lock and may follow a journal that is still being written.
//
//	j, err := journal.Create(dir, journal.Options{Run: "mnist-1"})
//	rec, err := j.Append("round.closed", Closed{Round: 1}) // durable when it returns
//	for e, err := range journal.Decode[Closed](j.Records("round.closed")) { … }
//
// # Format, version 1
//
// A journal is the file journal.jsonl in the run's folder: UTF-8 text, one
// record a line, each line ended by one line feed (0x0A). A line is a JSON
// object whose members stand in this order and with no space between them:
//
//	{"seq":S,"time":"T","kind":"K","body":B,"prev":"P","hash":"H"}
//
// Herein
//
//   - S is the record's number in decimal: 0 for the first, then one more each.
//   - T is the time of writing, UTC, RFC 3339 with exactly nine digits of a
//     second: 2026-01-31T23:59:59.000000000Z. It informs; nothing depends on it.
//   - K names what happened: 1 to 64 of the characters a–z 0–9 . _ -, a letter
//     first.
//   - B is any JSON value on one line.
//   - P is the member "hash" of the line before, and 64 zeros in record 0.
//   - H is the SHA-256, as 64 lower-case hexadecimal digits, of the bytes of
//     this very line before the text ,"hash":" – that is, of the whole line
//     but its last 76 bytes (line feed included). Because these bytes contain
//     P, the hash of a record fixes every record before it.
//
// Record 0 is the header. Its kind is journal.opened and its body is
//
//	{"format":"cohort-journal","version":1,"run":"ID"}
//
// A reader refuses a version that it does not know, and skips kinds that it
// does not know. No line is longer than [MaxLine] bytes.
//
// To check a journal: for every line compare H with the hash of the bytes, S
// with the count, P with the H before. The chain shows accidents and tampering
// by whoever lacks the newest hash; it proves nothing against the journal's
// owner, who can write a whole new one. That is why heads are handed out and
// echoed elsewhere.
//
// # What a crash leaves
//
// Records are written and then synced, several appenders sharing one sync. So
// a crash can leave an incomplete last line, which no caller was told about:
// [Open] cuts it off and says so in [Recovery]. A complete line that is wrong
// is another matter: Open refuses and names it ([DamageError]), unless
// [Options.FromLastGood] is set, which moves everything from that line on to a
// file journal.cut-N.jsonl beside it and continues from the record before.
//
// All access to files goes through [FS], so that tests can lose unsynced
// writes, tear them, fill the disk or kill the process at any of them; see
// package faultfs.
package journal
