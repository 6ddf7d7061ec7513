package coordinator

import "time"

// Now is how a run stands.
type Now struct {
	ID       string `json:"id"`
	Stage    Stage  `json:"stage"`
	Error    string `json:"error,omitempty"`
	Round    int    `json:"round"`  // under way, from 1; 0: none yet
	Rounds   int    `json:"rounds"` // of the run
	Phase    string `json:"phase,omitempty"`
	Answered int    `json:"answered"`
	Asked    int    `json:"asked"`
	Agreed   int    `json:"agreed"`  // members that agreed to the terms
	Members  int    `json:"members"` // that the run waits for before it begins
	Dir      string `json:"dir"`
}

// Now returns how the run stands.
func (r *Run) Now() Now {
	n := Now{ID: r.spec.ID, Stage: r.Stage(), Rounds: r.spec.Config.Rounds, Members: r.spec.Members, Dir: r.rec.Dir(),
		Answered: int(r.answered.Load()), Asked: int(r.asked.Load())}
	r.joining.Lock()
	n.Agreed = len(r.lobby)
	r.joining.Unlock()
	if n.Stage != Waiting || r.people.Len() > 0 { // or on the way to where it was
		n.Round = min(r.roundNow()+1, n.Rounds)
	}
	if p := r.phase.Load(); p != nil {
		n.Phase = *p
	}
	if err := r.Err(); err != nil {
		n.Error = err.Error()
	}
	return n
}

// Presence returns what the server knows of a member's connection.
func (s *Server) Presence(member string) (here bool, since time.Time, kernels, program string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := s.members[member]; p != nil {
		return p.connected(), p.since, p.kernels, p.program
	}
	return false, time.Time{}, "", ""
}

// Refused returns how many requests have been refused.
func (s *Server) Refused() (n int64) {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	for _, c := range s.counters.refused {
		n += c
	}
	return n
}
