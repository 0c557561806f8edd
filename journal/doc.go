// Package journal is the durable record of sessions and parts.
package journal
