// Package web moves blobs over HTTPS: a handler for the side that has an open
// port, a client for the other.
//
//	permits := web.NewPermits()
//	mux.Handle("/blob/", web.NewHandler(store, web.HandlerOptions{Who: who, Permits: permits}))
//	permits.Issue("hospital-3", hash, bytes, time.Now().Add(time.Hour)) // may upload this blob
//	permits.Grant("hospital-3", model, time.Time{})                      // may read that one
//
//	c := web.NewClient(httpClient, "https://example.org")
//	err := c.Upload(ctx, own, hash)
//	err := c.Download(ctx, own, model)
//
// # Permission
//
// A hash is no permission. Whoever asks is identified by the caller's Who, and
// may do what a permit says: upload or read one blob, of one length, for some
// time. What is forbidden, what is unknown, and who is unknown get the same
// answer: 404 and the same body. A chunk counts as uploaded only if this very
// member sent it under this permit: the server's knowing it already from
// somebody else saves nobody the sending, because that would tell who has what,
// and hand out chunks for knowing their hashes.
//
// # Requests
//
//	POST /blob/HASH              body: the manifest. 200 {"missing":[[a,b],…]}: chunks a to b−1
//	                             are missing; 201: the blob is complete and durable
//	PUT /blob/chunk/HASH?blob=B  body: the chunk. 204: durable; 201: and the blob is complete.
//	                             &from=N: the chunk from its byte N, the rest being here
//	HEAD /blob/chunk/HASH?blob=B the header Blob-Have says how much of a chunk arrived
//	                             before its upload broke off
//	GET /blob/HASH               the manifest
//	GET /blob/chunk/HASH?blob=B  the chunk; Range is obeyed
//
// Other answers to them: 400 the body ended early or is malformed, 404 see
// above, 409 POST the manifest first, or N is not what is here, 413 the body is
// longer than permitted (the rest is not read), 422 the bytes are not what their
// hash says (nothing is kept), 507 the store is full.
package web
