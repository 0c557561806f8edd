package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Deadlines of the server. Publishing and unmounting wait for the store and
// for programs, each with a deadline of its own; longTimeout only bounds what
// those forget.
const (
	askTimeout  = 20 * time.Second
	longTimeout = 24 * time.Hour
)

// Server answers on a control socket.
type Server struct {
	http *http.Server
	done chan struct{}
}

// Serve answers for m on l until Close.
func Serve(l net.Listener, m Mount, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{done: make(chan struct{}), http: &http.Server{
		Handler:           handler{m, log}.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      askTimeout + 10*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10, // a path may have 4096 bytes, each escaped
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("control socket ended", "error", err)
		}
	}()
	return s
}

// Close stops listening, removes the socket and waits until the requests in
// progress are answered, or ctx ends.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	<-s.done
	return err
}

type handler struct {
	mount Mount
	log   *slog.Logger
}

func (h handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", h.answer(askTimeout, func(r *http.Request) (any, error) {
		return h.mount.Status(r.Context())
	}))
	mux.HandleFunc("GET /v1/sessions", h.answer(askTimeout, func(r *http.Request) (any, error) {
		list, err := h.mount.Sessions(r.Context())
		if list == nil {
			list = []Session{} // an empty list, not null
		}
		return list, err
	}))
	mux.HandleFunc("GET /v1/sessions/{session}", h.answer(askTimeout, func(r *http.Request) (any, error) {
		return h.mount.Session(r.Context(), r.PathValue("session"))
	}))
	for _, a := range []Action{Publish, Abort, Retry} {
		mux.HandleFunc("POST /v1/sessions/{session}/"+string(a), h.answer(longTimeout, func(r *http.Request) (any, error) {
			which, force := r.PathValue("session"), r.URL.Query().Get("force") == "1"
			s, err := h.mount.Act(r.Context(), which, a, force)
			if err != nil {
				h.log.Warn("session "+string(a)+" refused", "session", which, "force", force, "error", err)
			} else {
				h.log.Info("session "+string(a)+" done", "session", s.ID, "path", s.Path, "force", force)
			}
			return s, err
		}))
	}
	mux.HandleFunc("POST /v1/unmount", h.answer(longTimeout, func(r *http.Request) (any, error) {
		var req UnmountRequest
		if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 4096)).Decode(&req); err != nil {
			return nil, fmt.Errorf("unmount request: %w", err)
		}
		return h.mount.Unmount(r.Context(), req)
	}))
	return mux
}

// answer runs one request within its deadline and writes what it returned.
func (h handler) answer(timeout time.Duration, do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		if timeout > askTimeout {
			// Errors mean a connection without deadlines: then nothing cuts it.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout + 10*time.Second))
		}
		body, err := do(r.WithContext(ctx))
		status := http.StatusOK
		if err != nil {
			e := asError(err)
			body, status = e, httpStatus[e.Code]
		}
		text, err := json.Marshal(body)
		if err != nil {
			h.log.Error("control answer", "error", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if _, err := w.Write(append(text, '\n')); err != nil {
			h.log.Debug("control answer", "error", err)
		}
	}
}

func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Deadline, Message: err.Error()}
	default:
		return &Error{Code: Failed, Message: err.Error()}
	}
}
