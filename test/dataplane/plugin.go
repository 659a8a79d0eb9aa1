package dataplane

// pluginPath is where the node guests have the plugin.
const pluginPath = "/csi-plugin"
