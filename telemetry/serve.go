package telemetry

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// portsTried is how far Listen looks for a free port.
const portsTried = 100

// ErrNeedsToken is returned for an address beyond loopback without a token.
var ErrNeedsToken = errors.New("an address beyond loopback needs a token")

// Listen opens addr (host:port) or, where that port is taken, the next free
// one of the hundred that follow. Port 0 takes any. token is the one that
// Serve will ask for; without it only loopback addresses are opened (W10).
func Listen(addr, token string) (net.Listener, error) {
	host, first, err := parseAddress(addr, token)
	if err != nil {
		return nil, err
	}
	last := first
	if first != 0 {
		last = min(first+portsTried, 65535)
	}
	for port := first; ; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return l, nil
		}
		if port == last || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
}

// CheckAddress tells whether Listen may be asked to open addr.
func CheckAddress(addr, token string) error {
	_, _, err := parseAddress(addr, token)
	return err
}

func parseAddress(addr, token string) (host string, port int, err error) {
	host, name, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	if port, err = net.LookupPort("tcp", name); err != nil {
		return "", 0, err
	}
	if token == "" && !loopback(host) {
		return "", 0, fmt.Errorf("%s: %w", addr, ErrNeedsToken)
	}
	return host, port, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// ServeOptions says what the HTTP server shows besides the metrics.
type ServeOptions struct {
	// Title names the mount on the page at /.
	Title string
	// Healthy asks whether the mount answers; nil means that it does. It
	// must honour its context.
	Healthy func(ctx context.Context) error
	// Token, where set, must come with each request as a bearer token.
	Token  string
	Logger *slog.Logger
}

// Server answers Prometheus.
type Server struct {
	http *http.Server
	addr net.Addr
	done chan struct{}
}

// healthTimeout is how long the mount may take to answer /healthz.
const healthTimeout = 2 * time.Second

// Handler is what Serve serves.
func (m *Metrics) Handler(o ServeOptions) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		Timeout:             20 * time.Second,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if o.Healthy != nil {
			if err := o.Healthy(ctx); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintln(w, err)
				return
			}
		}
		io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		page.Execute(w, o.Title)
	})
	if o.Token == "" {
		return mux
	}
	return requireToken(o.Token, mux)
}

// requireToken lets requests pass that carry the bearer token. Hashes are
// compared, so that neither time nor length tells anything.
func requireToken(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="wholefs"`)
			http.Error(w, "a bearer token is needed", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Serve answers on l until Close.
func (m *Metrics) Serve(l net.Listener, o ServeOptions) *Server {
	return serve(l, m.Handler(o), 30*time.Second, o.Logger)
}

// ServeProfiles answers the requests of go tool pprof on l until Close.
func ServeProfiles(l net.Listener, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return serve(l, mux, 10*time.Minute, log) // a profile takes as long as it is asked to
}

func serve(l net.Listener, h http.Handler, writeTimeout time.Duration, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{addr: l.Addr(), done: make(chan struct{}), http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("http server ended", "address", l.Addr().String(), "error", err)
		}
	}()
	return s
}

// URL is where the server answers.
func (s *Server) URL() string { return "http://" + s.addr.String() }

// Close ends the server. Requests in progress get a moment to finish.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.done
	return err
}
