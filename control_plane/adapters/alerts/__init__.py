"""How alerts and events are said to the world."""
