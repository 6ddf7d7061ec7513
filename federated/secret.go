package federated

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// Secrets returns a [Server.Secret] whose values all follow from one key: HKDF-SHA256 with round and purpose as info. Whoever
// does not have the key cannot tell them from random bytes. The key is 32 bytes from crypto/rand, never the run's seed.
func Secrets(key [32]byte) func(round int, purpose string) ([32]byte, error) {
	return func(round int, purpose string) (out [32]byte, err error) {
		b, err := hkdf.Key(sha256.New, key[:], nil, fmt.Sprintf("cohort secret, round %d, %s", round, purpose), len(out))
		copy(out[:], b)
		return out, err
	}
}
