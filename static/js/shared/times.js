// Relative times stay true while a page is open, and their exact time is in the reader's own time zone.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];

export function ago(seconds) {
  for (const [size, unit] of UNITS) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  return "just now";
}

/** Seconds in the two units that matter; the same words as the filter |duration. */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  if (seconds > 0 && seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.max(0, Math.round(seconds));
  const steps = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
  for (const [size, unit, smaller, smallerUnit] of steps) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / smaller);
    return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${smallerUnit}` : ""}`;
  }
  return `${whole} s`;
}

export function refreshTimes(root = document) {
  for (const item of root.querySelectorAll("time[data-ago]")) {
    const moment = new Date(item.dateTime);
    const seconds = (Date.now() - moment) / 1000;
    if (seconds < 0) continue;
    const words = ago(seconds);
    if (item.textContent !== words) item.textContent = words;
    item.title = moment.toLocaleString([], { dateStyle: "long", timeStyle: "short" });
  }
}
