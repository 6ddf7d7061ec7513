package assisted

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Links says how the rows of an assisting organisation are thought to go with those of the sponsor.
type Links struct {
	// Own names by row of the assistor the sponsor's row that it is thought to be, −1 for none; nil: row by row.
	Own []int
	// Blocks and SponsorBlocks name the block of each row on either side, such as a postcode: a row's partner is of its block.
	// Nil: all are one block.
	Blocks, SponsorBlocks []int
	// Certain marks rows of the assistor whose link is surely right.
	Certain []bool
	// Compared and SponsorCompared have by row of either side values, such as names and dates of birth, that agree more or less where rows
	// belong together; nil: there are none.
	Compared, SponsorCompared [][]string
}

// Aligner finds out, from what the sponsor asks to be fitted, which of an organisation's rows is which of the sponsor's, where links
// by key are in doubt or missing. Package assisted/mismatch has one.
type Aligner interface {
	// Align pairs rows of features x (n×d, NaN is missing) with rows of residuals (m×k). It may draw from r.
	Align(ctx context.Context, x, residuals *mat.Dense, l Links, r *rng.Stream) (*Alignment, error)
}

// Alignment is what an [Aligner] has found.
type Alignment struct {
	Pair      []int   // by row of the organisation: row of the residuals, −1 for none
	Wrong     float64 // share of the links by key that seem wrong; 1 if there were none
	Doubted   int     // links by key that are more likely wrong than right
	Explained float64 // how much of the residuals' variance the model explains along the plan
	Spread    float64 // over how many rows the plan spreads one in the mean, exp of its entropy; 1 is certain
	Warnings  []string
}

// What an organisation that aligns tells of it with its first fitted values, by [Desk.Run].
const (
	linksWrong     = "links.wrong"
	linksDoubted   = "links.doubted"
	linksExplained = "links.explained"
	linksSpread    = "links.spread"
)

// LinkScalars are the scalars that tell how sure an organisation is of its links.
func LinkScalars() []string {
	return []string{linksWrong, linksDoubted, linksExplained, linksSpread}
}

// alongside is what goes with the keys of a run's rows, for organisations whose keys are in doubt. What is nil is not told.
type alongside struct {
	Blocks   []string   `json:"blocks,omitempty"`
	Compared [][]string `json:"compared,omitempty"` // values such as names, by row
}

// appendRows appends the keys of a run's rows, and what goes with them if there is anything.
func appendRows(b []byte, keys []string, more alongside) ([]byte, error) {
	b = AppendKeys(b, keys)
	if more.Blocks == nil && more.Compared == nil {
		return b, nil
	}
	text, err := json.Marshal(more)
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(text))), text...), err
}

// readRows reads what [appendRows] wrote; named is what it says of keys alone, to be digested.
func readRows(b []byte) (named []byte, keys []string, more alongside, err error) {
	size := keysLength(b)
	if size == len(b) || size < 0 {
		keys, err = ReadKeys(b)
		return b, keys, more, err
	}
	named = b[:size]
	if keys, err = ReadKeys(named); err != nil {
		return nil, nil, more, err
	}
	rest := b[size:]
	if len(rest) < 8 || binary.LittleEndian.Uint64(rest) != uint64(len(rest)-8) {
		return nil, nil, more, fmt.Errorf("%d bytes follow the last key", len(rest))
	}
	if err := json.Unmarshal(rest[8:], &more); err != nil {
		return nil, nil, more, fmt.Errorf("blocks of rows: %w", err)
	}
	for what, n := range map[string]int{"blocks": len(more.Blocks), "values to compare": len(more.Compared)} {
		if n != 0 && n != len(keys) {
			return nil, nil, more, fmt.Errorf("%s of %d rows, there are %d", what, n, len(keys))
		}
	}
	for _, values := range more.Compared {
		if len(values) != len(more.Compared[0]) {
			return nil, nil, more, fmt.Errorf("%d values to compare in one row, %d in another", len(more.Compared[0]), len(values))
		}
	}
	return named, keys, more, nil
}

// keysLength returns how many bytes a list of keys takes at the beginning of b, −1 if there is none.
func keysLength(b []byte) int {
	if len(b) < 8 {
		return -1
	}
	n, at := binary.LittleEndian.Uint64(b), 8
	for ; n > 0; n-- {
		if len(b)-at < 4 {
			return -1
		}
		size := int(binary.LittleEndian.Uint32(b[at:]))
		if at += 4; size > len(b)-at {
			return -1
		}
		at += size
	}
	return at
}

// keptLinks is what a desk keeps of an alignment: by row to fit the key of its own row, "" for none, and what is told of it.
type keptLinks struct {
	Slot Slot               `json:"slot"` // of the model that was asked for
	Keys []string           `json:"keys"`
	Told map[string]float64 `json:"told"`
}

func linksName(at federated.Local) string { return at.Scope + "/links" }

// known counts rows that the desk can answer for: by key, or by block if it aligns.
func (d *Desk) known(rows roster) (have, fit int) {
	members := d.blockMembers(rows)
	for i, own := range rows.at {
		if own >= 0 || members != nil && len(members[rows.Blocks[i]]) > 0 {
			have++
			if i < rows.fit {
				fit++
			}
		}
	}
	return have, fit
}

// blockMembers returns the desk's rows by block, nil if it does not align by blocks.
func (d *Desk) blockMembers(rows roster) map[string][]int {
	if d.Aligner == nil || d.Blocks == nil || rows.Blocks == nil {
		return nil
	}
	members := map[string][]int{}
	for i, b := range d.Blocks {
		members[b] = append(members[b], i)
	}
	return members
}

// comparable returns an error unless the sponsor says of its rows what the desk compares.
func (d *Desk) comparable(rows alongside) error {
	if d.Aligner == nil || d.Compared == nil {
		return nil
	}
	if len(rows.Compared) == 0 {
		return errors.New("this organisation compares columns with the sponsor's, which tells none: it names them in table.compare")
	}
	if mine, theirs := len(d.Compared[0]), len(rows.Compared[0]); mine != theirs {
		return fmt.Errorf("this organisation compares %d columns with %d of the sponsor's: both name the same ones, in the same order", mine, theirs)
	}
	return nil
}

// align finds out whose rows the rows to fit are, once a run, by the first targets that come; without an aligner keys are right.
// What it tells of the links goes with the answer.
func (d *Desk) align(ctx context.Context, at federated.Local, s Slot, rows roster, r *mat.Dense) (roster, map[string]float64, error) {
	if d.Aligner == nil {
		return rows, nil, nil
	}
	var kept keptLinks
	switch b, err := d.Store.Get(linksName(at)); {
	case err == nil:
		if err := json.Unmarshal(b, &kept); err != nil || len(kept.Keys) != rows.fit {
			return rows, nil, fmt.Errorf("the links of this run cannot be read: %d rows, %v", len(kept.Keys), err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return rows, nil, err
	default:
		if kept, err = d.findLinks(ctx, at, s, rows, r); err != nil {
			return rows, nil, fmt.Errorf("finding out whose rows are whose: %w", err)
		}
		text, err := json.Marshal(kept)
		if err == nil {
			err = d.Store.Put(linksName(at), text)
		}
		if err != nil {
			return rows, nil, err
		}
	}
	aligned := append([]int{}, rows.at...)
	copy(aligned, d.find(kept.Keys))
	rows.at = aligned
	if kept.Slot != s { // told once
		kept.Told = nil
	}
	return rows, kept.Told, nil
}

// findLinks aligns the desk's rows with those of the targets that have any. Rows that are linked by key to another of the run's rows
// do not come into question: targets of these are not known.
func (d *Desk) findLinks(ctx context.Context, at federated.Local, s Slot, rows roster, r *mat.Dense) (keptLinks, error) {
	members := d.blockMembers(rows)
	label := make([]int, len(rows.at)) // of the run's rows
	var labels []int
	for i := range rows.at {
		if label[i] = -1; i < rows.fit && !Masked(r, i) {
			label[i] = len(labels)
			labels = append(labels, i)
		}
	}
	linked := make([]int, len(d.Keys)) // to which label; −1: none, −2: to a row without targets
	for i := range linked {
		linked[i] = -1
	}
	for i, own := range rows.at {
		if own >= 0 {
			if linked[own] = label[i]; label[i] < 0 {
				linked[own] = -2
			}
		}
	}
	number := map[string]int{}
	l := Links{}
	for _, i := range labels {
		if members == nil {
			break
		}
		if _, ok := number[rows.Blocks[i]]; !ok {
			number[rows.Blocks[i]] = len(number)
		}
		l.SponsorBlocks = append(l.SponsorBlocks, number[rows.Blocks[i]])
	}
	var candidates []int
	for own, to := range linked {
		if to == -2 {
			continue
		}
		if members != nil {
			block, ok := number[d.Blocks[own]]
			if !ok {
				continue
			}
			if to >= 0 && l.SponsorBlocks[to] != block {
				to = -1 // a link between blocks does not count
			}
			l.Blocks = append(l.Blocks, block)
		}
		candidates, l.Own = append(candidates, own), append(l.Own, to)
	}
	if len(candidates) < 2 {
		return keptLinks{}, fmt.Errorf("%d rows of this table come into question: are keys and blocks written alike?", len(candidates))
	}
	if members == nil {
		by := 0
		for _, to := range l.Own {
			by += b2i(to >= 0)
		}
		if by < 2 {
			return keptLinks{}, errors.New("nothing says which rows could belong together: neither do keys agree, nor is there a block that both sides know")
		}
	}
	if d.Compared != nil && rows.Compared != nil {
		l.Compared, l.SponsorCompared = reorder(d.Compared, candidates), reorder(rows.Compared, labels)
	}
	x, y := Pick(d.Features, candidates), Pick(r, labels)
	found, err := d.Aligner.Align(ctx, x, y, l, at.Rand(s.Round, fmt.Sprintf("align/%d", s.Step)))
	if err != nil {
		return keptLinks{}, err
	}
	kept := keptLinks{Slot: s, Keys: d.byKey(rows, label), Told: map[string]float64{linksWrong: found.Wrong, linksDoubted: float64(found.Doubted),
		linksExplained: found.Explained, linksSpread: found.Spread}}
	for c, to := range found.Pair {
		if to >= 0 {
			kept.Keys[labels[to]] = d.Keys[candidates[c]]
		}
	}
	return kept, nil
}

// byKey are the keys of the rows to fit that have no label, and so are known by their keys only.
func (d *Desk) byKey(rows roster, label []int) []string {
	keys := make([]string, rows.fit)
	for i := range keys {
		if own := rows.at[i]; own >= 0 && label[i] < 0 {
			keys[i] = d.Keys[own]
		}
	}
	return keys
}

// expect answers for rows of which no key tells the desk's own, by the mean of the values of their block: it is what the row has in
// expectation if each of the block's rows is as likely its own.
func (d *Desk) expect(rows roster, g *mat.Dense, predict func(*mat.Dense) (*mat.Dense, error)) error {
	members := d.blockMembers(rows)
	if members == nil {
		return nil
	}
	count := strataOf(rows.strata)
	values := map[int]*mat.Dense{} // by stratum, of all of the desk's rows
	for i, own := range rows.at {
		mates := members[rows.Blocks[i]]
		if own >= 0 || len(mates) == 0 {
			continue
		}
		in := stratum(rows.strata, i)
		all, known := values[in]
		if !known {
			var err error
			if all, err = predict(within(d.Features, in, count)); err != nil {
				return err
			}
			if err := finite(all); err != nil {
				return fmt.Errorf("the model's prediction: %w", err)
			}
			values[in] = all
		}
		row := g.RawRowView(i)
		clear(row)
		for _, mate := range mates {
			for k, v := range all.RawRowView(mate) {
				row[k] += v / float64(len(mates))
			}
		}
	}
	return nil
}

// Aligned adds what organisations that align have told of their links in a phase.
func (t *Table) Aligned(srv federated.Server, roll federated.Roll, d *federated.Diagnostics) {
	for i, member := range roll.Each.Members {
		told := func(name string) float64 { return roll.Each.Values[name][i] }
		wrong := told(linksWrong)
		if !(wrong >= 0 && wrong <= 1) {
			continue // it does not align
		}
		name := srv.Population.Member(int(member)).Name
		for _, scalar := range LinkScalars() {
			d.Add(scalar, name, told(scalar))
		}
		d.Notes = append(d.Notes, fmt.Sprintf("%s has aligned its rows: %.1f %% of the links by key seem wrong, %.0f more likely than not; its columns explain "+
			"%.0f %% of what it was sent, and a row is spread over %.1f others in the mean", name, 100*wrong, told(linksDoubted), 100*told(linksExplained), told(linksSpread)))
	}
}
