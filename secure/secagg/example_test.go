package secagg_test

import (
	"crypto/ed25519"
	"fmt"
	"log"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/secagg"
)

// passes is a list of public keys that all members have from each other.
type passes map[string]ed25519.PublicKey

func (p passes) Pinned(string) bool { return true }

func (p passes) Verify(name string, msg, sig []byte) error {
	switch key, ok := p[name]; {
	case !ok:
		return secagg.ErrUnknown
	case !ed25519.Verify(key, msg, sig):
		return fmt.Errorf("the signature is not %s's", name)
	}
	return nil
}

// Four hospitals compute a weighted mean; one of them is lost on the way.
func Example() {
	names := []string{"Aarhus", "Basel", "Cork", "Delft"}
	values := [][]float32{{1, -2}, {2, 0}, {5, 5}, {4, 4}}
	weights := []uint64{10, 10, 90, 20} // numbers of patients

	p := secagg.Params{Session: "run 1, round 1", Members: 4, Threshold: 3, Size: 2, Extra: 1, MaxWeight: 100}
	server, err := secagg.NewServer(p, nil)
	check(err)

	// 1. keys
	book := passes{}
	members := map[string]*secagg.Member{}
	for _, n := range names {
		public, private, err := ed25519.GenerateKey(nil)
		check(err)
		book[n] = public
		m, advert, err := secagg.NewMember(p, n, 0, secagg.Trust{
			Sign:          func(msg []byte) ([]byte, error) { return ed25519.Sign(private, msg), nil },
			Verifier:      book,
			RequirePinned: true,
		})
		check(err)
		members[n] = m
		check(server.Advert(advert))
	}
	adverts, err := server.Adverts()
	check(err)

	// 2. shares
	for _, n := range names {
		shared, err := members[n].Share(adverts)
		check(err)
		check(server.Boxes(n, shared.Boxes))
	}

	// 3. masked vectors; Cork is lost before it sends its own
	for i, n := range names {
		if n == "Cork" {
			continue
		}
		x := p.NewVector(p.Size)
		check(secagg.Encode(p, x.Body64, values[i], weights[i], rng.New(1, 1, n, "rounding")))
		x.Extra[0] = weights[i]
		boxes, err := server.Inbox(n)
		check(err)
		y, err := members[n].Mask(boxes, x)
		check(err)
		check(server.Masked(n, y))
	}
	survivors, err := server.Survivors()
	check(err)

	// 4. everyone signs who has come through; 5. and gives up shares
	for _, n := range survivors {
		c, err := members[n].Confirm(survivors)
		check(err)
		check(server.Confirm(c))
	}
	confirmations, err := server.Confirmations()
	check(err)
	for _, n := range survivors {
		v, err := members[n].Unmask(survivors, confirmations)
		check(err)
		check(server.Reveal(v))
	}
	sum, err := server.Recover(0)
	check(err)

	mean := make([]float32, p.Size)
	check(secagg.Decode(p, mean, sum.Body64, sum.Extra[0]))
	fmt.Println(sum.Members, "of weight", sum.Extra[0])
	fmt.Printf("%.3f\n", mean)

	// Nobody helps to open another list.
	_, err = members["Basel"].Confirm(secagg.Survivors{"Aarhus", "Basel", "Cork"})
	fmt.Println(err)
	// Output:
	// [Aarhus Basel Delft] of weight 40
	// [2.750 1.500]
	// secure aggregation: contradicts what came before: list of survivors: this member has signed another one
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
