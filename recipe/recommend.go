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
	fleet := &simulation.Fleet{Split: p.Split, Dealt: p.Dealt, Seed: r.Seed}
	u, err := userOf(r, bare, federated.Local{Train: p.Split.Train.All()}, user)
	if err != nil {
		return nil, err
	}
	client, err := p.clientOf(u)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", user, err)
	}
	s, keep, err := simulation.Personal(dir, client)
	if err != nil {
		return nil, err
	}
	return recommended(bare, fleet.Local(fleet.Member(client)), s, keep, u, n)
}

// userOf finds a user among those whose ratings are at hand, if the run is of a method that recommends.
func userOf(r *Recipe, a federated.Algorithm, at federated.Local, user string) (int32, error) {
	if _, ok := a.(recommender); !ok {
		return 0, fmt.Errorf("the run is of %s, which recommends nothing; cohort predict asks other models", r.Method)
	}
	u, err := at.Train.Data.Ratings.User(user)
	return int32(u), err
}

// recommended asks a client's model for the n best items that a user of the client has not rated.
func recommended(a federated.Algorithm, at federated.Local, s federated.State, keep *weights.Set, u int32, n int) (*Recommendations, error) {
	scorer, err := a.(recommender).Recommender(at, s, keep)
	if err != nil {
		return nil, err
	}
	ratings := at.Train.Data.Ratings
	var rated []int32
	var values []float32
	mine := recommend.Of(at.Train)
	if k, ok := mine.Find(u); ok {
		rated, values = mine.Row(k)
	}
	scores, all := make([]float32, len(ratings.Items)), make([]int32, len(ratings.Items))
	for i := range all {
		all[i] = int32(i)
	}
	scorer.Score(0, rated, values, all, scores)
	seen := rated
	if held := recommend.Of(at.Test); len(held.Users) > 0 {
		if k, ok := held.Find(u); ok {
			more, _ := held.Row(k)
			seen = recommend.Table{Items: append(append([]int32(nil), rated...), more...)}.Rated()
		}
	}
	own, ok := a.(keeper)
	out := &Recommendations{User: ratings.Users[u], Client: at.Member.Name, Trained: keep != nil || !ok || !own.Keeps(), Rated: len(seen)}
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
