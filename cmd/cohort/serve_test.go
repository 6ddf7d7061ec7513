package main

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/transport/transporttest"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestServeScripts runs testdata/serve/*.txt: coordinators and members as processes of their own, over a real port, which each
// script finds as $PORT.
func TestServeScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: filepath.Join("testdata", "serve"), Setup: prepareNetwork, Cmds: networkCommands(),
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != ""})
}

// networkCommands are the commands that scripts with a coordinator have.
func networkCommands() map[string]func(*testscript.TestScript, bool, []string) {
	cmds := maps.Clone(scriptCommands)
	cmds["token"] = cmdToken
	cmds["socket"] = cmdSocket
	return cmds
}

// prepareNetwork gives a script two ports of its own.
func prepareNetwork(e *testscript.Env) error {
	for _, name := range []string{"PORT", "OTHER"} {
		port, err := transporttest.FreePort()
		if err != nil {
			return err
		}
		e.Setenv(name, strconv.Itoa(port))
	}
	e.Setenv("NO_PROXY", "localhost,127.0.0.1")
	return prepareScript(e)
}

// cmdSocket waits until somebody answers on a socket: socket PATH.
func cmdSocket(ts *testscript.TestScript, _ bool, args []string) {
	for range 20_000 {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			// The name may be too long for a socket, which the program works around; a status answers.
			if ts.Exec("cohort", "status", "--dir", filepath.Dir(ts.MkAbs(args[0]))) == nil {
				return
			}
		}
		time.Sleep(3 * time.Millisecond)
	}
	ts.Fatalf("nobody answers on %s", args[0])
}
