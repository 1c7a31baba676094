// fanfold-probe is what the tests of the cluster run in pods: it serves, asks, resolves names and writes files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// limit bounds each command but serve.
const limit = 10 * time.Second

// commands take their arguments and return what to print.
var commands = map[string]func(context.Context, []string) (string, error){
	"serve":   serve,
	"get":     get,
	"resolve": resolve,
	"write":   write,
	"read":    read,
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: fanfold-probe serve ADDRESS | get URL | resolve NAME | write FILE TEXT | read FILE")
		os.Exit(2)
	}
	command, ok := commands[os.Args[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, "fanfold-probe: no command", os.Args[1])
		os.Exit(2)
	}
	text, err := command(context.Background(), os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "fanfold-probe:", err)
		os.Exit(1)
	}
	fmt.Print(text)
}

// serve answers every request with the pod's name and the asker's address.
func serve(_ context.Context, arguments []string) (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s %s\n", name, host)
	})
	server := &http.Server{Addr: arguments[0], Handler: handler, ReadHeaderTimeout: limit}
	return "", server.ListenAndServe()
}

func get(ctx context.Context, arguments []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, arguments[0], nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	return string(body), err
}

func resolve(ctx context.Context, arguments []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, arguments[0])
	return strings.Join(addresses, "\n") + "\n", err
}

func write(_ context.Context, arguments []string) (string, error) {
	if len(arguments) != 2 {
		return "", errors.New("write wants FILE and TEXT")
	}
	return "", os.WriteFile(arguments[0], []byte(arguments[1]), 0o600)
}

func read(_ context.Context, arguments []string) (string, error) {
	data, err := os.ReadFile(arguments[0])
	return string(data), err
}
