// Package natsbus is the real transport: NATS, within the one HTTPS port of the coordinator or outside of it.
//
// [NewServer] embeds a NATS server that listens on no port of its own. Its [Server.Handler] accepts WebSockets on the
// coordinator's listener and pipes each to the server in process, so that members need nothing but outgoing HTTPS:
//
//	bus, _ := natsbus.NewServer(natsbus.Options{Admit: roster.Find})
//	mux.Handle("/bus", bus.Handler())
//	hub := bus.Hub() // a transport.Hub
//
//	link, _ := natsbus.Dial(ctx, natsbus.DialOptions{URL: "https://fl.example.org", Name: "clinic-a", Key: key, TLS: conf})
//
// [External] is the same hub on a NATS server or cluster that somebody else runs, with the coordinator as its authorisation
// callout; members dial the cluster itself.
//
// # Who may do what
//
// A member proves with its NKey that it holds the private key: it signs the server's nonce. Options.Admit says whose key that
// is. From then on it may publish to up.NAME.> and subscribe to down.NAME, all and _INBOX.NAME.>, and to nothing else; so the
// subject of a message vouches for its sender, and nobody reads what is meant for others. The answer to a request goes to
// the requester's own inbox or nowhere. One connection a member: a newer one takes the place of the older. docs/wire.md
// describes all of that for programs in other languages.
//
// Presence is exact for the embedded server, as every connection passes through this package: a member is here once it has said
// so after its subscriptions (up.NAME.here.ID), until its connection ends.
package natsbus
