"""What developers and testers of a site need beside it; nothing here is used by a running QuickComm."""
