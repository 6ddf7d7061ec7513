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
// # Sealed records
//
// A record that is not for everybody who may see the journal is sealed: its K is
// sealed, its T that of the record before it, and its B a string, in base64
// without padding, of 16 bytes of salt and then AES-256-GCM of
//
//	{"kind":"K","time":"T","body":B}
//
// with the real ones, and blanks behind it that hide how long it is. Key and
// nonce are the first 32 and the last 12 bytes of HKDF-SHA256 of the journal's
// key with that salt; its info, which is also the associated data, is
//
//	cohort journal v1, record S of ID
//
// with the number of the record and the run that the header names, so that no
// sealed record fits another place. The salt is random: a journal that is put
// back from a copy, and goes on otherwise, uses no nonce twice. Where even the
// number of records would tell something, some of the kind filling, with the
// body null, stand among them. Chain and hashes are over what stands in the
// file, so that whoever lacks the key can check them as well. The journal's key
// is its owner's matter: of a run it is HKDF-SHA256 of the key in its file
// secret.key without salt, with the info "cohort journal".
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
