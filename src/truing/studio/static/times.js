// Moments in the reader's own time zone, those of the last two days by their names. The server writes them in UTC, in the same form.

const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const today = new Date();
const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
const NAMED = { [day.format(today)]: "today", [day.format(yesterday)]: "yesterday" };

for (const time of document.querySelectorAll("time[data-moment]")) {
  const at = new Date(time.dateTime);
  time.textContent = `${NAMED[day.format(at)] ?? day.format(at)}, ${hour.format(at)}`;
  time.title = at.toString();
}
