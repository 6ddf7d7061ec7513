// Package gate is the federation's one public port: TLS 1.3, limits that keep
// strangers from crowding members out, and the question who is asking.
//
//	g := gate.New(gate.Options{Certificate: source.Certificate, Member: roster.Who})
//	g.HandleMembers("/blob/", blobs)
//	g.HandleMembers("/bus", bus)
//	g.Handle("POST /join", gate.JoinHandler(roster, gate.JoinLimits{}))
//	g.Handle("/", page)
//	err := g.Serve(listener) // until g.Shutdown
//
// Members are recognised by the key of their TLS certificate, which [Options.Member]
// looks up at every request: whoever is revoked is refused at the next one, and
// [Gate.Cut] ends what is under way. Everybody else is a stranger: a browser, a
// member that is about to join, or an attacker.
//
// # Limits
//
// Every connection begins as a stranger's and becomes a member's when its
// handshake shows a member's key. Strangers have a small number of places, and
// each source address (each /64 of IPv6) a part of them. When the places are
// full, the stranger that has been idle longest makes room for the newcomer, so a
// storm costs strangers their connections, and an established member is never
// touched. A member that connects during a storm gets through unless more
// newcomers than there are places arrive while it greets; then it tries again. An
// attacker with one address can push out only those who share it.
//
// Handshakes compute in turn: a slot is held while the processor works and given
// back while the peer is waited for, so that peers which stall hold none.
//
// What stalls is cut off: handshakes, headers, idle connections and answers that
// nobody reads by their time limits, bodies by a floor on the rate at which they
// arrive, counted only while the handler waits for them.
//
// [Gate.Stats] counts what was accepted and what was refused, and why.
package gate
