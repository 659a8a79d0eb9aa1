package rds

// The parameters of NVMe/TCP connections, as StorageClasses and volume contexts name them.
const (
	ParamQueues         = "nrIOQueues"
	ParamCtrlLoss       = "ctrlLossTmo" // how long I/O waits for an array that is away; -1: for ever
	ParamReconnectDelay = "reconnectDelay"
	ParamKeepAlive      = "keepAliveTmo"
)

// Bounds are the least and the greatest value of a number.
type Bounds struct{ Min, Max int }

// Admit reports whether n is within the bounds.
func (b Bounds) Admit(n int) bool { return n >= b.Min && n <= b.Max }

// ConnectionBounds are those of each parameter of connections. Times are in seconds.
var ConnectionBounds = map[string]Bounds{
	ParamQueues:         {1, 128},
	ParamCtrlLoss:       {-1, 7 * 24 * 3600},
	ParamReconnectDelay: {0, 3600},
	ParamKeepAlive:      {0, 3600},
}
