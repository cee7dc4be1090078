package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// listen opens addr. For port 0 it takes the address in file, where it also leaves the one it took, if that is free.
func listen(addr, file string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %s: %w", addr, err)
	}
	ln, err := net.Listener(nil), error(nil)
	if port != "0" {
		ln, err = net.Listen("tcp", addr)
	} else if ln = listenLast(file); ln == nil {
		ln, err = listenLow(host)
	}
	if err != nil {
		return nil, err
	}
	if err := writeFileAtomic(file, []byte(ln.Addr().String()+"\n"), 0o644); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func listenLast(file string) net.Listener {
	last, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	ln, err := net.Listen("tcp", strings.TrimSpace(string(last)))
	if err != nil {
		return nil
	}
	return ln
}

// listenLow takes a free port below those that the kernel gives to outgoing connections (from 32768), so that it will be
// free again after the cluster was stopped for a while.
func listenLow(host string) (net.Listener, error) {
	var err error
	for range 100 {
		var ln net.Listener
		if ln, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(20000+rand.IntN(12000)))); err == nil {
			return ln, nil
		}
	}
	return nil, err
}

// lockDir takes DIR/lock, which the kernel frees when the process ends, however it ends.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another devcluster: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
