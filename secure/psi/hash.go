package psi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/cohort-learning/cohort/parallel"
)

// ShortestSecret is the least number of bytes of a shared secret.
const ShortestSecret = 16

// Hash returns HMAC-SHA-256 under a shared secret of each identifier, in base64: the same at all parties that have the secret,
// and of no use to others. The scope keeps what was hashed for one purpose from being compared with what was hashed for another.
func Hash(secret []byte, scope string, ids []string) ([]string, error) {
	if len(secret) < ShortestSecret {
		return nil, fmt.Errorf("psi: the shared secret has %d bytes: need %d or more, of random ones (e.g. openssl rand -hex 32)", len(secret), ShortestSecret)
	}
	prefix := binary.BigEndian.AppendUint64([]byte("cohort/key/1\x00"), uint64(len(scope)))
	prefix = append(prefix, scope...)
	out := make([]string, len(ids))
	err := parallel.Try(len(ids), 0, func(i int) error {
		h := hmac.New(sha256.New, secret)
		h.Write(prefix)
		h.Write([]byte(ids[i]))
		out[i] = base64.RawURLEncoding.EncodeToString(h.Sum(nil))
		return nil
	})
	return out, err
}
