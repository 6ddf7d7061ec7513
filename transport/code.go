package transport

// Code says, in a form that programs can match, why something was refused. Codes never change their meaning.
type Code string

// The codes.
const (
	CodeMalformed Code = "malformed" // not a message of this protocol
	CodeVersion   Code = "version"   // no common version of the protocol
	CodeSignature Code = "signature" // not signed by the sender's key
	CodeSender    Code = "sender"    // the message says it is from somebody else than whose connection it came over
	CodeUnknown   Code = "unknown"   // no such run or order; forbidden looks the same
	CodeTerms     Code = "terms"     // the member has not agreed to the run's terms
	CodeSchema    Code = "schema"    // the member's data is of another kind than the run's
	CodeConflict  Code = "conflict"  // another result was accepted for this order
	CodeStale     Code = "stale"     // the order was given up or its phase is over
	CodeTask      Code = "task"      // the result answers another task than the order's
	CodeResult    Code = "result"    // the result cannot be summed: its reason says why
	CodeBlob      Code = "blob"      // a blob is missing, larger than declared, or not what its hash says
	CodeFull      Code = "full"      // the coordinator has no room: try again later
	CodeBusy      Code = "busy"      // too many requests at once: try again later
	CodeRevoked   Code = "revoked"   // the member was revoked
	CodePaused    Code = "paused"    // the run is paused
	CodeHead      Code = "head"      // the journal does not continue what was seen before
	CodeInternal  Code = "internal"  // the coordinator's fault
)
