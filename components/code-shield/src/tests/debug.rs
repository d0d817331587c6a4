
use crate::parse::parse; use crate::language::Language; use crate::tree::*;
fn dump(t:&Tree,id:Id,d:usize){ let n=t.node(id); println!("{}{:?} {:?} {}..{}"," ".repeat(d*2),n.kind,n.atom,n.start,n.end); for &k in &n.kids{dump(t,k,d+1)} }
#[test] fn dump_it(){
 let code=std::fs::read_to_string("/tmp/b/in").unwrap(); let l:Language=serde_json::from_str(&format!("{:?}",std::env::var("L").unwrap())).unwrap();
 let t=parse(&code,l,std::env::var("P").is_ok()); dump(&t,t.root,0);
}
