package recipe

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/weights"
)

// Recommended is an item that a user has not rated, as a run's recommender sees it.
type Recommended struct {
	Item  string  `json:"item"`
	Title string  `json:"title,omitempty"`
	Tags  string  `json:"tags,omitempty"`
	Score float64 `json:"score"` // the rating it predicts; of implicit feedback the logit of liking the item
}

// Recommendations are a user's.
type Recommendations struct {
	User    string        `json:"user"`
	Profile string        `json:"profile,omitempty"`
	Client  string        `json:"client"`  // whose model it is
	Trained bool          `json:"trained"` // whether the client has trained, or still has the model that all began with
	Rated   int           `json:"rated"`   // items that are left out
	Items   []Recommended `json:"items"`
}

// recommender is a method that scores items for a member's users.
type recommender interface {
	Recommender(at federated.Local, s federated.State, keep *weights.Set) (recommend.Scorer, error)
}

// keeper is a method whose members keep a part of the model that they use: one that has never trained has that part as all began.
type keeper interface{ Keeps() bool }

// Recommend asks the model of the client that a user of the run in dir belongs to for the n best items that the user has not
// rated. The data are read again, from the folder of real data sets where they lie there.
func Recommend(ctx context.Context, dir, dataDir, user string, n int) (*Recommendations, error) {
	r, p, bare, err := reopen(ctx, dir, dataDir)
	if err != nil {
		return nil, err
	}
	a, ok := bare.(recommender)
	if !ok {
		return nil, fmt.Errorf("the run is of %s, which recommends nothing; cohort predict asks other models", r.Method)
	}
	ratings := p.Split.Train.Ratings
	u, err := ratings.User(user)
	if err != nil {
		return nil, err
	}
	client, err := p.clientOf(int32(u))
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", user, err)
	}
	s, keep, err := simulation.Personal(dir, client)
	if err != nil {
		return nil, err
	}
	fleet := &simulation.Fleet{Split: p.Split, Dealt: p.Dealt, Seed: r.Seed}
	at := fleet.Local(fleet.Member(client))
	scorer, err := a.Recommender(at, s, keep)
	if err != nil {
		return nil, err
	}
	mine := recommend.Of(at.Train)
	k, _ := mine.Find(int32(u))
	rated, values := mine.Row(k)
	scores, all := make([]float32, len(ratings.Items)), make([]int32, len(ratings.Items))
	for i := range all {
		all[i] = int32(i)
	}
	scorer.Score(0, rated, values, all, scores)
	seen := rated
	if held := recommend.Of(at.Test); len(held.Users) > 0 {
		if k, ok := held.Find(int32(u)); ok {
			more, _ := held.Row(k)
			seen = recommend.Table{Items: append(append([]int32(nil), rated...), more...)}.Rated()
		}
	}
	own, ok := bare.(keeper)
	out := &Recommendations{User: user, Client: fleet.Member(client).Name, Trained: keep != nil || !ok || !own.Keeps(), Rated: len(seen)}
	if ratings.Profiles != nil {
		out.Profile = ratings.Profiles[u]
	}
	for _, i := range recommend.Best(scores, seen, n) {
		x := Recommended{Item: ratings.Items[i], Title: ratings.Title(int(i)), Score: float64(scores[i])}
		if ratings.Tags != nil {
			x.Tags = ratings.Tags[i]
		}
		out.Items = append(out.Items, x)
	}
	return out, nil
}

// DisclosesItems reports whether the server of a run sees which items a client's users have rated: from single updates of a model
// with a row for each item it does, also if all rows are sent, since those of other items do not change. Secure sums, and noise
// over all rows, hide it.
func (r *Recipe) DisclosesItems() bool {
	o, ok := r.Options.(interface{ DisclosesItems() bool })
	return ok && o.DisclosesItems() && !r.Hidden()
}

// clientOf returns which client has a user's ratings.
func (p *Plan) clientOf(user int32) (int, error) {
	for k := range p.Dealt.Train.Clients() {
		for _, row := range p.Dealt.Train.Rows(k) {
			if p.Split.Train.Tok[2*row] == user {
				return k, nil
			}
		}
	}
	return 0, errors.New("no client has ratings of it to train on, so that no model knows it")
}
