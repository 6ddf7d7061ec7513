package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestJoinScripts runs testdata/join/*.txt: real processes over a real port, which each script finds as $PORT.
func TestJoinScripts(t *testing.T) {
	cmds := networkCommands()
	cmds["mint"] = cmdMint
	testscript.Run(t, testscript.Params{Dir: filepath.Join("testdata", "join"), Setup: prepareNetwork, Cmds: cmds,
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != ""})
}

// cmdToken puts a token that "cohort invite --json" printed into a variable: token FILE N VARIABLE.
func cmdToken(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[2], field(ts, args[0], "tokens/"+args[1]+"/token").(string))
}

// cmdMint makes a token of a federation that is nowhere: mint NAME URL EXPIRES VARIABLE.
func cmdMint(ts *testscript.TestScript, _ bool, args []string) {
	k, err := identity.NewKey()
	ts.Check(err)
	expires, err := time.Parse(time.RFC3339, args[2])
	ts.Check(err)
	ts.Setenv(args[3], identity.Token{URL: args[1], CA: identity.Fingerprint{7}, Federation: k.Public(), Name: args[0], Expires: expires}.String())
}
