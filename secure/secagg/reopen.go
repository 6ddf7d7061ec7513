package secagg

import "slices"

// ReopenServer continues a session under the same terms from what its second step led to: the adverts of U1 and the names of
// those in U2. Boxes have been routed, vectors have not come.
func ReopenServer(p Params, v Verifier, adverts Adverts, shared []string) (*Server, error) {
	s, err := NewServer(p, v)
	if err != nil {
		return nil, err
	}
	for _, a := range adverts {
		if err := s.Advert(a); err != nil {
			return nil, err
		}
	}
	if _, err := s.Adverts(); err != nil {
		return nil, err
	}
	for _, name := range shared {
		i, err := s.member(name, true, "boxes")
		if err != nil {
			return nil, err
		}
		s.boxes[i] = nil
	}
	if err := s.closeShares(); err != nil {
		return nil, err
	}
	s.boxes = nil
	return s, nil
}

// Words returns how many words of the body members with a holding send: those that enough members of U1 hold.
func (s *Server) Words(holding int) int {
	if s.roster == nil {
		panic("secagg: Words before Adverts")
	}
	return s.roster.sent[holding].Len()
}

// MaskedSum adds the sum of the vectors of several members, all with the same holding, as [Server.Masked] adds each.
func (s *Server) MaskedSum(from []string, y *Vector) error {
	if s.u2 == nil || s.list != nil {
		return refuse(ErrOrder, "", "sum of vectors outside of their step")
	}
	holding := -1
	places := make([]int, len(from))
	for k, name := range from {
		i, err := s.member(name, true, "vector")
		if err != nil {
			return err
		}
		h := s.roster.adverts[i].Holding
		switch {
		case !s.u2[i]:
			return refuse(ErrOrder, name, "vector of one who has not shared its secrets")
		case s.came[i] || slices.Contains(places[:k], i):
			return refuse(ErrConflict, name, "vector: one came before")
		case k > 0 && h != holding:
			return refuse(ErrMalformed, name, "vector of holding %d in a sum of holding %d", h, holding)
		}
		places[k], holding = i, h
	}
	if len(from) == 0 {
		return nil
	}
	sent := s.roster.sent[holding]
	if err := y.fits(s.p, sent.Len()); err != nil {
		return err
	}
	for _, i := range places {
		s.came[i] = true
	}
	s.sum.AddPart(y, sent)
	return nil
}
