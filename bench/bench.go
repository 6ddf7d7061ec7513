// Package bench holds what measures Cohort's CPU engine against a peer: the script that is the
// peer (PyTorch), the command compare, and package peak.
//
//	go run ./bench/compare            # the whole table
//	go run ./bench/compare -quick     # in under 50 seconds
//	go run ./bench/compare -only resnet -json
package bench

import _ "embed"

// Peer is the Python program that serves cases on PyTorch; see the command compare for the protocol.
//
//go:embed peer.py
var Peer string
